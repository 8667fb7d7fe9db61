"""How each family's config.json is read: one short function per family, which gives the transformer's switches.

No torch here. What a file leaves out is filled in before (see model/config/family_defaults.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.config.layer_kinds import (
    LayerKind,
    alternating,
    num_layers,
    qwen_windows,
    window,
    windows_by_type,
    with_layers,
    within,
)
from tokenglass.model.config.rope_config import read_rope
from tokenglass.model.errors import ConfigError

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate"), "gelu_tanh"),
}


Switches = dict[str, Any]  # arguments of ModelConfig
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def read_llama(f: Fields) -> Switches:
    return {
        **sizes(f),
        "qkv_bias": f.boolean("attention_bias"),
        "o_bias": f.boolean("attention_bias"),
        "mlp_bias": f.boolean("mlp_bias"),
        **with_layers(f),
    }


def read_mistral(f: Fields) -> Switches:
    return {**sizes(f), **with_layers(f, windows=[window(f)] * num_layers(f))}


def read_qwen2(f: Fields) -> Switches:
    return {**sizes(f), "qkv_bias": True, **with_layers(f, windows=qwen_windows(f))}


def read_qwen3(f: Fields) -> Switches:
    bias = f.boolean("attention_bias")
    return {**sizes(f), "qk_norm": "head", "qkv_bias": bias, "o_bias": bias, **with_layers(f, windows=qwen_windows(f))}


def read_gemma2(f: Fields) -> Switches:
    return {
        **gemma(f),
        "attention_softcap": f.number_or_none("attn_logit_softcapping"),
        **with_layers(f, windows=windows_by_type(f, alternating(num_layers(f), 2))),
    }


def read_gemma3(f: Fields) -> Switches:
    windows = windows_by_type(f, alternating(num_layers(f), f.integer("sliding_window_pattern", 6)))
    per_type = f.part("rope_parameters")
    head_dim, most = f.integer("head_dim"), f.integer("max_position_embeddings")
    older = f.part("rope_scaling")  # one object, of the full layers, whose keys win
    full = Fields({**per_type.part("full_attention").raw, **older.raw}, older.where, f.notes)
    ropes = {
        True: read_rope(drop_truncate(full), theta=f.number("rope_theta", 1e6), head_dim=head_dim, max_positions=most),
        False: read_rope(
            drop_truncate(per_type.part("sliding_attention")),
            theta=f.number("rope_local_base_freq", 1e4),
            head_dim=head_dim,
            max_positions=most,
        ),
    }
    per_type.ignore([key for key in per_type.raw if key not in per_type.asked])
    layers = tuple(LayerKind(ropes[size is None], within(size, most)) for size in windows)
    return {**gemma(f), "qk_norm": "head", "layers": layers, "max_positions": most}


def drop_truncate(rope: Fields) -> Fields:
    """A rope without yarn's `truncate`, which transformers looks for beside the objects per layer type, not in them."""
    rope.ignore([key for key in ("truncate",) if key in rope.raw])
    return Fields({key: value for key, value in rope.raw.items() if key != "truncate"}, rope.where, rope.notes)


def read_gpt2(f: Fields) -> Switches:
    f.refuse("add_cross_attention", "scale_attn_by_inverse_layer_idx")
    f = f.rename(GPT2_NAMES)
    hidden_size, num_heads = f.integer("n_embd"), f.integer("n_head")
    return {
        "vocab_size": f.integer("vocab_size"),
        "hidden_size": hidden_size,
        "num_heads": num_heads,
        "num_kv_heads": num_heads,
        "head_dim": hidden_size // max(num_heads, 1),
        "intermediate_size": f.integer("n_inner", 4 * hidden_size),
        "max_positions": f.integer("n_positions"),
        "norm_eps": f.number("layer_norm_epsilon"),
        "attention_scale": None if f.boolean("scale_attn_weights", True) else 1.0,
        "activation": activation(f, "activation_function"),
        **with_bias(),
        "learned_positions": True,
        "layers": (LayerKind(rope=None),) * num_layers(f, "n_layer"),
    }


def read_gpt_neox(f: Fields) -> Switches:
    common = sizes(f, eps="layer_norm_eps")
    bias = f.boolean("attention_bias", True)
    return {
        **common,
        "num_kv_heads": common["num_heads"],
        "head_dim": common["hidden_size"] // max(common["num_heads"], 1),
        **with_bias(),
        "qkv_bias": bias,
        "o_bias": bias,
        "parallel_residual": f.boolean("use_parallel_residual", True),
        **with_layers(f, theta="rotary_emb_base", partial="rotary_pct"),
    }


def read_phi3(f: Fields) -> Switches:
    windows = [window(f)] * num_layers(f)
    return {**sizes(f), **with_layers(f, windows=windows, partial="partial_rotary_factor")}


def read_olmo2(f: Fields) -> Switches:
    return {
        **sizes(f),
        "norm": "rms_float",
        "pre_norm": False,
        "post_norm": True,
        "qk_norm": "projection",
        "qkv_bias": f.boolean("attention_bias"),
        "o_bias": f.boolean("attention_bias"),
        **with_layers(f),
    }


def read_smollm3(f: Fields) -> Switches:
    count = num_layers(f)
    interval = f.integer("no_rope_layer_interval", 4)
    rotary = f.items("no_rope_layers", count, or_more=True)  # 1 where there is rotary, whatever the name says
    if rotary is None:
        rotary = tuple(int(not full) for full in alternating(count, interval))
    if any(item not in (0, 1) for item in rotary):
        raise f.wrong("no_rope_layers", "a 0 or a 1 for each layer")
    windows = qwen_windows(f, [not with_rope for with_rope in rotary])
    switches = {**read_llama(f), **with_layers(f, windows=windows)}
    layers = (
        kind if with_rope else LayerKind(None, kind.window)
        for kind, with_rope in zip(switches["layers"], rotary, strict=True)
    )
    return {**switches, "layers": tuple(layers)}


def gemma(f: Fields) -> Switches:
    """What the Gemma generations share."""
    f.refuse("use_bidirectional_attention")
    scalar = f.number("query_pre_attn_scalar")
    if not scalar > 0:
        raise f.wrong("query_pre_attn_scalar", "a positive number")
    return {
        **sizes(f, act="hidden_activation"),
        "norm": "rms_plus_one",
        "post_norm": True,
        "embedding_scale": f.integer("hidden_size") ** 0.5,
        "qkv_bias": f.boolean("attention_bias"),
        "o_bias": f.boolean("attention_bias"),
        "attention_scale": scalar**-0.5,
        "logit_softcap": f.number_or_none("final_logit_softcapping"),
    }


def sizes(f: Fields, *, eps: str = "rms_norm_eps", act: str = "hidden_act") -> Switches:
    """The sizes by Llama's names."""
    hidden_size, num_heads = f.integer("hidden_size"), f.integer("num_attention_heads")
    return {
        "vocab_size": f.integer("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": f.integer("intermediate_size"),
        "num_heads": num_heads,
        "num_kv_heads": f.integer("num_key_value_heads", num_heads),
        "head_dim": f.integer("head_dim", hidden_size // max(num_heads, 1)),
        "norm_eps": f.number(eps),
        "activation": activation(f, act),
    }


def with_bias() -> Switches:
    """LayerNorm and biases everywhere, a plain MLP: what came before Llama."""
    return {"norm": "layer", "qkv_bias": True, "o_bias": True, "mlp_bias": True, "gated_mlp": False}


def activation(f: Fields, key: str) -> str:
    name = f.text(key, "silu")
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"config.json: {key} {quote(name)} is not supported (supported: {', '.join(sorted(ACTIVATIONS))})"
        )
    return ACTIVATIONS[name]


FAMILIES: dict[str, Callable[[Fields], Switches]] = {
    "llama": read_llama,
    "mistral": read_mistral,
    "qwen2": read_qwen2,
    "qwen2_vl_text": read_qwen2,
    "qwen2_5_vl_text": read_qwen2,
    "qwen3": read_qwen3,
    "qwen3_vl_text": read_qwen3,
    "gemma2": read_gemma2,
    "gemma3_text": read_gemma3,
    "gpt2": read_gpt2,
    "gpt_neox": read_gpt_neox,
    "phi3": read_phi3,
    "olmo2": read_olmo2,
    "smollm3": read_smollm3,
}

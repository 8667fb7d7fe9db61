"""Readers of config.json for families with LayerNorm. No torch here."""

from __future__ import annotations

from tokenglass.model.config.fields import Fields
from tokenglass.model.config.layer_kinds import (
    LayerKind,
    full_by_pattern,
    num_layers,
    rope_where_windowed,
    window,
    windows_by_type,
    with_layers,
)
from tokenglass.model.config.sizes import Switches, activation, sizes, with_bias

GPT2_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


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


def read_starcoder2(f: Fields) -> Switches:
    bias = f.boolean("use_bias", True)
    return {
        **sizes(f, eps="norm_epsilon"),
        **with_bias(),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": bias,
        **with_layers(f, windows=[window(f)] * num_layers(f)),
    }


def read_phi(f: Fields) -> Switches:
    return {
        **sizes(f, eps="layer_norm_eps"),
        **with_bias(),
        "parallel_residual": True,
        "shared_norm": True,
        "qk_norm": "head" if f.boolean("qk_layernorm") else None,
        "head_bias": True,
        **with_layers(f, partial="partial_rotary_factor"),
    }


def read_stablelm(f: Fields) -> Switches:
    parallel = f.boolean("use_parallel_residual")
    return {
        **sizes(f, eps="layer_norm_eps"),
        "norm": "layer",
        "qkv_bias": f.boolean("use_qkv_bias"),
        "parallel_residual": parallel,
        "shared_norm": parallel,
        "qk_norm": "each_head" if f.boolean("qk_layernorm") else None,
        **with_layers(f, partial="partial_rotary_factor"),
    }


def read_cohere(f: Fields) -> Switches:
    f.refuse("use_qk_norm")
    return {**cohere(f), **with_layers(f)}


def read_cohere2(f: Fields) -> Switches:
    """Only the layers with a window have positions."""
    windows = windows_by_type(f, full_by_pattern(f, 4))
    switches = with_layers(f, windows=windows)
    return {**cohere(f), **switches, "layers": rope_where_windowed(switches["layers"], windows)}


def cohere(f: Fields) -> Switches:
    bias = f.boolean("attention_bias")
    return {
        **sizes(f, eps="layer_norm_eps"),
        "norm": "layer",
        "norm_bias": False,
        "parallel_residual": True,
        "shared_norm": True,
        "qkv_bias": bias,
        "o_bias": bias,
        "logit_scale": f.number("logit_scale"),
    }


def read_olmo(f: Fields) -> Switches:
    """Its norms have no weights, and one eps whatever the file says."""
    f.refuse("clip_qkv")
    bias = f.boolean("attention_bias")
    norm = {"norm": "layer", "norm_weight": False, "norm_bias": False}
    return {**sizes(f.replace({"rms_norm_eps": 1e-5})), **norm, "qkv_bias": bias, "o_bias": bias, **with_layers(f)}


def read_jais2(f: Fields) -> Switches:
    bias = f.boolean("attention_bias")
    return {
        **sizes(f, eps="layer_norm_eps"),
        **with_bias(),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": f.boolean("mlp_bias"),
        **with_layers(f),
    }

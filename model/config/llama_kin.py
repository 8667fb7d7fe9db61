"""Readers of config.json for Llama's kin: norms before attention and MLP, a gated MLP. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenglass.model.config.fields import Fields
from tokenglass.model.config.layer_kinds import (
    LayerKind,
    QueryGrowth,
    alternating,
    note_difference,
    num_layers,
    qwen_windows,
    window,
    windows_by_type,
    with_layers,
)
from tokenglass.model.config.rope_config import rope_type
from tokenglass.model.config.sizes import Switches, sizes


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


def read_ministral(f: Fields) -> Switches:
    windows = windows_by_type(f, [window(f) is None] * num_layers(f))
    return {**sizes(f), **with_layers(f, windows=windows)}


def read_internlm3(f: Fields) -> Switches:
    """One bias switch for all projections, by either of two pairs of names."""
    f = f.rename({"qkv_bias": "attention_bias", "bias": "mlp_bias"})
    bias = f.boolean("attention_bias")
    if f.boolean("mlp_bias") != bias:
        raise f.wrong("mlp_bias", f"{bias}, as attention_bias is; others are not supported")
    return read_llama(f)


def read_iquestcoder(f: Fields) -> Switches:
    f.refuse("clip_qkv", "use_sliding_window")
    return read_llama(f)


def read_helium(f: Fields) -> Switches:
    return {**read_llama(f), "norm": "rms_float", "o_bias": False}


def read_qwen2(f: Fields) -> Switches:
    return {**sizes(f), "qkv_bias": True, **with_layers(f, windows=qwen_windows(f))}


def read_qwen3(f: Fields) -> Switches:
    bias = f.boolean("attention_bias")
    return {**sizes(f), "qk_norm": "head", "qkv_bias": bias, "o_bias": bias, **with_layers(f, windows=qwen_windows(f))}


def read_phi3(f: Fields) -> Switches:
    windows = [window(f)] * num_layers(f)
    return {**sizes(f), **with_layers(f, windows=windows, partial="partial_rotary_factor")}


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


def read_granite(f: Fields) -> Switches:
    return {
        **read_llama(f),
        "embedding_scale": f.number("embedding_multiplier"),
        "attention_scale": f.number("attention_multiplier"),
        "residual_scale": f.number("residual_multiplier"),
        "logit_scale": 1 / nonzero(f, "logits_scaling"),
    }


def read_arcee(f: Fields) -> Switches:
    return {**read_llama(f), "gated_mlp": False}


def read_seed_oss(f: Fields) -> Switches:
    return {**read_llama(f), "o_bias": f.boolean("attention_out_bias")}


def read_ernie4_5(f: Fields) -> Switches:
    bias = f.boolean("use_bias")
    return {**sizes(f), "qkv_bias": bias, "o_bias": bias, "mlp_bias": bias, **with_layers(f)}


def read_exaone(f: Fields) -> Switches:
    """Some options have a second name in the first files."""
    names = {"num_layers": "num_hidden_layers", "layer_norm_epsilon": "rms_norm_eps"}
    return read_llama(f.rename({**names, "activation_function": "hidden_act"}))


def read_glm(f: Fields) -> Switches:
    return {**sizes(f), "qkv_bias": f.boolean("attention_bias"), **with_layers(f, partial="partial_rotary_factor")}


def read_glm4(f: Fields) -> Switches:
    return {**read_glm(f), "post_norm": True}


def read_hunyuan(f: Fields) -> Switches:
    """Its own dynamic scaling is a base that `alpha` makes larger, whatever the length."""
    scaling = f.part("rope_scaling") if f.part("rope_scaling").raw else f.part("rope_parameters")
    alpha, dim = scaling.number("alpha", 0.0), sizes(f)["head_dim"]
    bias = {"qkv_bias": f.boolean("attention_bias"), "o_bias": f.boolean("attention_bias")}
    if alpha > 0 and rope_type(scaling) == "dynamic" and dim > 2:
        theta = scaling.number("rope_theta", f.number("rope_theta")) * alpha ** (dim / (dim - 2))
        f = f.replace({"rope_theta": theta, "rope_scaling": None, "rope_parameters": None})
    return {**sizes(f), **bias, "qk_norm": "head", "rotate_first": True, **with_layers(f)}


MINISTRAL3_ROPE = {  # of a file that names none
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def read_ministral3(f: Fields) -> Switches:
    """Queries grow with the position behind the trained ones, as in Llama 4."""
    rope = name_rope(f, MINISTRAL3_ROPE).part("rope_parameters")
    beta, trained = rope.number("llama_4_scaling_beta", 0.0), rope.integer("original_max_position_embeddings", 0)
    own = ("llama_4_scaling_beta", "max_position_embeddings")
    plain = {key: value for key, value in rope.raw.items() if key not in own}
    f = f.replace({"rope_parameters": plain, "rope_scaling": None})
    growth = QueryGrowth(beta, trained) if beta else None
    return {**read_mistral(f), "query_growth": growth}


APERTUS_ROPE = {  # likewise
    "rope_type": "llama3",
    "rope_theta": 1.2e7,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def read_apertus(f: Fields) -> Switches:
    f = name_rope(f, APERTUS_ROPE)
    bias = f.boolean("attention_bias")
    return {
        **sizes(f),
        "qkv_bias": bias,
        "o_bias": bias,
        "qk_norm": "head",
        "gated_mlp": False,
        **with_layers(f),
    }


def read_nanochat(f: Fields) -> Switches:
    bias = f.boolean("attention_bias")
    return {
        **sizes(f),
        "norm_weight": False,
        "embedding_norm": True,
        "qk_norm": "head",
        "rotate_first": True,
        "qkv_bias": bias,
        "o_bias": bias,
        "gated_mlp": False,
        "logit_softcap": f.number_or_none("final_logit_softcapping"),
        **with_layers(f),
    }


def name_rope(f: Fields, unnamed: Mapping[str, Any]) -> Fields:
    """The fields with one rope, by the newer name: rope_scaling where the file has both, `unnamed` where none."""
    scaling, newer = f.part("rope_scaling").raw, f.part("rope_parameters").raw
    note_difference(f, scaling, newer)
    return f.replace({"rope_scaling": None, "rope_parameters": scaling or newer or unnamed})


def nonzero(f: Fields, key: str) -> float:
    value = f.number(key)
    if not value > 0:
        raise f.wrong(key, "a positive number")
    return value

"""Readers of config.json for Gemma's kin: norms that multiply by 1 + weight, a scaled embedding. No torch here."""

from __future__ import annotations

from tokenglass.model.config.fields import Fields
from tokenglass.model.config.layer_kinds import (
    alternating,
    full_by_pattern,
    num_layers,
    ropes_by_type,
    windows_by_type,
    with_layers,
)
from tokenglass.model.config.sizes import Switches, sizes


def read_gemma(f: Fields) -> Switches:
    """The first files name the activation gelu and mean its approximation; later ones have hidden_activation."""
    switches = gemma(f, "hidden_act")
    legacy = {"activation": "gelu_tanh"} if f.text("hidden_act", "gelu") == "gelu" else {}
    return {**switches, **legacy, **with_layers(f)}


def read_gemma2(f: Fields) -> Switches:
    return {
        **later_gemma(f),
        "attention_softcap": f.number_or_none("attn_logit_softcapping"),
        **with_layers(f, windows=windows_by_type(f, alternating(num_layers(f), 2))),
    }


def read_gemma3(f: Fields) -> Switches:
    windows = windows_by_type(f, full_by_pattern(f, 6))
    theta, local = f.number("rope_theta", 1e6), f.number("rope_local_base_freq", 1e4)
    layers = ropes_by_type(f, windows, f.integer("head_dim"), theta, local)
    return {**later_gemma(f), "qk_norm": "head", **layers}


def later_gemma(f: Fields) -> Switches:
    """What Gemma 2 and 3 share."""
    scalar = f.number("query_pre_attn_scalar")
    if not scalar > 0:
        raise f.wrong("query_pre_attn_scalar", "a positive number")
    return {
        **gemma(f, "hidden_activation"),
        "post_norm": True,
        "attention_scale": scalar**-0.5,
        "logit_softcap": f.number_or_none("final_logit_softcapping"),
    }


def gemma(f: Fields, activation: str) -> Switches:
    """What all generations share."""
    f.refuse("use_bidirectional_attention")
    return {
        **sizes(f, act=activation),
        "norm": "rms_plus_one",
        "embedding_scale": f.integer("hidden_size") ** 0.5,
        "qkv_bias": f.boolean("attention_bias"),
        "o_bias": f.boolean("attention_bias"),
    }

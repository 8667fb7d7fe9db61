"""Readers of config.json for families with norms after attention and MLP alone. No torch here."""

from __future__ import annotations

from tokenglass.model.config.fields import Fields
from tokenglass.model.config.layer_kinds import (
    alternating,
    full_by_pattern,
    num_layers,
    rope_where_windowed,
    ropes_by_type,
    window,
    windows_by_type,
    with_layers,
)
from tokenglass.model.config.sizes import Switches, sizes


def read_olmo2(f: Fields) -> Switches:
    return {**olmo(f), **with_layers(f)}


def read_olmo3(f: Fields) -> Switches:
    windows = windows_by_type(f, alternating(num_layers(f), 4))
    common = olmo(f)
    return {**common, **ropes_by_type(f, windows, common["head_dim"], f.number("rope_theta"), 5e5)}


def read_exaone4(f: Fields) -> Switches:
    """With windows, the layers without one have no positions."""
    sliding = window(f) is not None
    windows = windows_by_type(f, full_by_pattern(f, 4) if sliding else [True] * num_layers(f))
    switches = with_layers(f, windows=windows)
    if sliding:
        switches["layers"] = rope_where_windowed(switches["layers"], windows)
    return {**sizes(f), "pre_norm": False, "post_norm": True, "qk_norm": "head", **switches}


def olmo(f: Fields) -> Switches:
    """What Olmo 2 and 3 share."""
    return {
        **sizes(f),
        "norm": "rms_float",
        "pre_norm": False,
        "post_norm": True,
        "qk_norm": "projection",
        "qkv_bias": f.boolean("attention_bias"),
        "o_bias": f.boolean("attention_bias"),
    }

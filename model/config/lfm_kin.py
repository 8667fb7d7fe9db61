"""Readers of config.json for families that have short convolutions in the place of most attention. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.config.layer_kinds import (
    Convolution,
    LayerKind,
    num_layers,
    ropes_by_type,
    windows_by_type,
    with_layers,
)
from tokenglass.model.config.mixture import read_mixture
from tokenglass.model.config.sizes import Switches, sizes
from tokenglass.model.errors import ConfigError


def read_lfm2(f: Fields) -> Switches:
    """Earlier files name the feed-forward's size block_ff_dim."""
    f = f.rename({"block_ff_dim": "intermediate_size"})
    return {**with_convolutions(f), "intermediate_size": feed_forward_size(f)}


def read_lfm2_moe(f: Fields) -> Switches:
    switches, dense = with_convolutions(f), f.integer("num_dense_layers")
    mixture = replace(
        read_mixture(f, renormalise=f.boolean("norm_topk_prob", True), size="moe_intermediate_size"),
        sigmoid=True,
        choice_bias=f.boolean("use_expert_bias", True),
        sum_eps=1e-6,
        scale=f.number("routed_scaling_factor"),
    )
    layers = tuple(replace(kind, has_experts=layer >= dense) for layer, kind in enumerate(switches["layers"]))
    return {**switches, "layers": layers, "mixture": mixture}


LFM3_ROPES = {  # of a file that names none
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
}


def read_lfm3(f: Fields) -> Switches:
    """Without layer_types, every fourth layer has attention to all, every fourth a window, the others convolutions."""
    f.refuse("rope_scaling")
    if not f.part("rope_parameters").raw:
        f = f.replace({"rope_parameters": LFM3_ROPES})
    count, bias = num_layers(f), f.boolean("attention_bias")
    kinds = ("conv", "conv", "full_attention", "conv"), ("sliding_attention", "conv", "full_attention", "conv")
    types = f.items("layer_types", count) or [kinds[layer > 0][layer % 4] for layer in range(count)]
    as_full = ["full_attention" if name == "conv" else name for name in types]  # whose rope is not asked for
    windows = windows_by_type(f.replace({"layer_types": as_full}), [True] * count)
    switches = {**sizes(f, eps="norm_eps"), **ropes_by_type(f, windows, f.integer("head_dim"), 1e6, 1e4)}
    return {
        **switches,
        "activation": "silu",
        "tie_word_embeddings": f.boolean("tie_word_embeddings"),
        "qk_norm": "head",
        "qkv_bias": bias,
        "o_bias": bias,
        "output_gate": "head" if f.boolean("use_attention_gate", True) else None,
        "post_norm": f.boolean("use_sandwich_norm", True),
        "layers": convolved(f, switches["layers"], [name != "conv" for name in types]),
    }


def with_convolutions(f: Fields) -> Switches:
    """What lfm2 and its mixtures have. Earlier files name tied embeddings tie_embedding."""
    f = f.rename({"tie_embedding": "tie_word_embeddings"})
    switches = {**sizes(f, eps="norm_eps"), "qk_norm": "head", **with_layers(f)}
    return {
        **switches,
        "tie_word_embeddings": f.boolean("tie_word_embeddings"),
        "layers": convolved(f, switches["layers"], attention_layers(f)),
    }


def convolved(f: Fields, layers: Sequence[LayerKind], attend: Sequence[bool]) -> tuple[LayerKind, ...]:
    """The layers, with convolutions in the place of attention in those that do not attend."""
    convolution = Convolution(f.integer("conv_L_cache"), f.boolean("conv_bias"))
    pairs = zip(layers, attend, strict=True)
    return tuple(kind if attends else LayerKind(None, convolution=convolution) for kind, attends in pairs)


def attention_layers(f: Fields) -> list[bool]:
    """Which layers have attention: by layer_types, or by the numbers in full_attn_idxs; else all."""
    count = num_layers(f)
    numbers, types = f.get("full_attn_idxs"), f.items("layer_types", count)
    if types is None:
        if numbers is not None and not (isinstance(numbers, list) and all(type(layer) is int for layer in numbers)):
            raise f.wrong("full_attn_idxs", "a list of layers")
        return [numbers is None or layer in numbers for layer in range(count)]
    for name in types:
        if name not in ("full_attention", "conv"):
            raise ConfigError(f"config.json: layer_types names {quote(name)}, which is not supported")
    return [name == "full_attention" for name in types]


def feed_forward_size(f: Fields) -> int:
    """Two thirds of what the file says, times a factor, rounded up, unless it says that this is the size."""
    size = f.integer("intermediate_size")
    if not f.boolean("block_auto_adjust_ff_dim", True):
        return size
    size, multiple = int(2 * size / 3), f.integer("block_multiple_of")
    if f.get("block_ffn_dim_multiplier") is None:
        return size
    if multiple < 1:
        raise f.wrong("block_multiple_of", "at least 1")
    return -(-int(f.number("block_ffn_dim_multiplier") * size) // multiple) * multiple

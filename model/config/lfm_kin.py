"""Readers of config.json for families that have short convolutions in the place of most attention. No torch here."""

from __future__ import annotations

from dataclasses import replace

from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.config.layer_kinds import Convolution, LayerKind, num_layers, with_layers
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


def with_convolutions(f: Fields) -> Switches:
    """What both have. Earlier files name tied embeddings tie_embedding."""
    f = f.rename({"tie_embedding": "tie_word_embeddings"})
    switches = {**sizes(f, eps="norm_eps"), "qk_norm": "head", **with_layers(f)}
    convolution = Convolution(f.integer("conv_L_cache"), f.boolean("conv_bias"))
    return {
        **switches,
        "tie_word_embeddings": f.boolean("tie_word_embeddings"),
        "layers": tuple(
            kind if attends else LayerKind(None, convolution=convolution)
            for kind, attends in zip(switches["layers"], attention_layers(f), strict=True)
        ),
    }


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

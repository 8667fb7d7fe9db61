"""Readers of config.json for families with Gated DeltaNet layers between those with attention. No torch here."""

from __future__ import annotations

from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.config.layer_kinds import DeltaNet, LayerKind, alternating, num_layers, with_layers
from tokenglass.model.config.mixture import Mixture, every_layer, read_mixture, some_layers
from tokenglass.model.config.sizes import Switches, sizes
from tokenglass.model.errors import ConfigError


def read_qwen3_5(f: Fields) -> Switches:
    switches = {**sizes(f), **with_layers(f, partial="partial_rotary_factor")}
    if switches["activation"] != "silu":
        raise f.wrong("hidden_act", "silu")
    delta = DeltaNet(
        key_heads=f.integer("linear_num_key_heads"),
        value_heads=f.integer("linear_num_value_heads"),
        key_dim=f.integer("linear_key_head_dim"),
        value_dim=f.integer("linear_value_head_dim"),
        taps=f.integer("linear_conv_kernel_dim"),
    )
    bias = f.boolean("attention_bias")
    return {
        **switches,
        "norm": "rms_plus_one",
        "qk_norm": "head",
        "output_gate": "number",
        "qkv_bias": bias,
        "o_bias": bias,
        "layers": tuple(
            kind if attends else LayerKind(None, delta=delta)
            for kind, attends in zip(switches["layers"], attention_layers(f), strict=True)
        ),
    }


def read_qwen3_5_moe(f: Fields) -> Switches:
    switches = read_qwen3_5(f)
    return {**switches, "layers": every_layer(switches["layers"]), "mixture": read_experts(f, renormalise=True)}


def read_qwen3_next(f: Fields) -> Switches:
    switches, mixture = read_qwen3_5(f), read_experts(f, renormalise=f.boolean("norm_topk_prob", True))
    return {**switches, "layers": some_layers(f, switches["layers"]), "mixture": mixture}


def read_experts(f: Fields, *, renormalise: bool) -> Mixture:
    sizes = {"size": "moe_intermediate_size", "shared": "shared_expert_intermediate_size"}
    return read_mixture(f, renormalise=renormalise, **sizes)


def attention_layers(f: Fields) -> list[bool]:
    """Which layers have attention: by layer_types, or every full_attention_interval-th."""
    count = num_layers(f)
    types = f.items("layer_types", count)
    if types is None:
        return alternating(count, f.integer("full_attention_interval", 4))
    for name in types:
        if name not in ("full_attention", "linear_attention"):
            raise ConfigError(f"config.json: layer_types names {quote(name)}, which is not supported")
    return [name == "full_attention" for name in types]

"""Readers of config.json for Gemma's kin: a scaled embedding, windows in most layers. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tokenglass.model.config.fields import Fields
from tokenglass.model.config.layer_kinds import (
    HeadSizes,
    LayerInputs,
    alternating,
    full_by_pattern,
    num_layers,
    ropes_by_type,
    windows_by_type,
    with_layers,
)
from tokenglass.model.config.mixture import Mixture, every_layer, read_mixture
from tokenglass.model.config.sizes import Switches, sizes
from tokenglass.model.errors import ConfigError


def read_gemma(f: Fields) -> Switches:
    """The first files name the activation gelu and mean its approximation; later ones have hidden_activation."""
    f.refuse("use_bidirectional_attention")
    switches = gemma(f, "hidden_act")
    legacy = {"activation": "gelu_tanh"} if f.text("hidden_act", "gelu") == "gelu" else {}
    return {**switches, **legacy, **with_layers(f)}


def read_gemma2(f: Fields) -> Switches:
    return {
        **later_gemma(f),
        "attention_softcap": f.number_or_none("attn_logit_softcapping"),
        **with_layers(f, windows=windows_by_type(f, alternating(num_layers(f), 2))),
    }


def read_vaultgemma(f: Fields) -> Switches:
    return {**read_gemma2(f), "post_norm": False}


def read_gemma3(f: Fields) -> Switches:
    windows = windows_by_type(f, full_by_pattern(f, 6))
    theta, local = f.number("rope_theta", 1e6), f.number("rope_local_base_freq", 1e4)
    layers = ropes_by_type(f, windows, f.integer("head_dim"), theta, local)
    return {**later_gemma(f), "qk_norm": "head", **layers}


def read_gemma4(f: Fields) -> Switches:
    """Layers without a window have heads of another size, and the last ones no keys and values of their own: they read
    those of the last layer of their kind that has some."""
    if f.get("use_bidirectional_attention") == "all":
        raise f.wrong("use_bidirectional_attention", "null; a model that sees what follows does not generate")
    types = gemma4_types(f)
    windows = windows_by_type(f.replace({"layer_types": list(types)}), [True] * len(types))
    heads = gemma4_heads(f, types)
    first_sharing = len(types) - f.integer("num_kv_shared_layers", 0)
    if not 0 < first_sharing <= len(types):
        raise f.wrong("num_kv_shared_layers", f"less than the {len(types)} layers")
    wide = 2 * f.integer("intermediate_size") if f.boolean("use_double_wide_mlp") else None
    own = HeadSizes(f.integer("num_key_value_heads"), f.integer("head_dim"))
    keys_are_values, full_dim = f.boolean("attention_k_eq_v"), heads["full_attention"].head_dim
    if f.get("rope_parameters") is None:
        full = {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}
        f = f.replace({"rope_parameters": {"full_attention": full}})
    layers = ropes_by_type(f, windows, f.integer("head_dim"), 1e6, 1e4, full_head_dim=full_dim)
    kinds = tuple(
        replace(
            kind,
            heads=None if heads[name] == own else heads[name],
            source=None if layer < first_sharing else sharing_source(types, layer, first_sharing),
            intermediate_size=None if layer < first_sharing else wide,
            keys_are_values=keys_are_values and name == "full_attention",
        )
        for layer, (kind, name) in enumerate(zip(layers["layers"], types, strict=True))
    )
    size, rows = f.integer("hidden_size_per_layer_input", 0), f.integer("vocab_size_per_layer_input")
    mixture = gemma4_experts(f)
    return {
        **gemma(f, "hidden_activation"),
        "norm": "rms_float",
        "post_norm": True,
        "qk_norm": "head",
        "value_norm": True,
        "attention_scale": 1.0,
        "logit_softcap": f.number_or_none("final_logit_softcapping"),
        "layer_scale": True,
        "layer_inputs": LayerInputs(size, rows) if size else None,
        "mixture": mixture,
        **layers,
        "layers": kinds if mixture is None else every_layer(kinds),
    }


def gemma4_experts(f: Fields) -> Mixture | None:
    """Beside the feed-forward of each layer, in the models that have them."""
    if not f.boolean("enable_moe_block"):
        return None
    f = f.replace({"num_experts_per_tok": f.get("top_k_experts"), "num_local_experts": None})
    return replace(read_mixture(f, renormalise=True, size="moe_intermediate_size"), beside_dense=True)


def gemma4_types(f: Fields) -> tuple[str, ...]:
    """The kinds of the layers: by default every sixth is full, and always the last."""
    full = alternating(num_layers(f), 6)
    types = f.items("layer_types", len(full)) or ["full_attention" if each else "sliding_attention" for each in full]
    return (*types[:-1], "full_attention")


def gemma4_heads(f: Fields, types: Sequence[str]) -> dict[str, HeadSizes]:
    """The sizes of each kind's heads, of which newer files have an object per layer, and the first two fields."""
    own = HeadSizes(f.integer("num_key_value_heads"), f.integer("head_dim"))
    if f.get("per_layer_config") is None:
        kv_heads = f.integer("num_global_key_value_heads", own.num_kv_heads)
        kv_heads = kv_heads if f.boolean("attention_k_eq_v") else own.num_kv_heads
        return {"sliding_attention": own, "full_attention": HeadSizes(kv_heads, f.integer("global_head_dim", 512))}
    f.asked.update(("num_global_key_value_heads", "global_head_dim"))
    per_layer = f.part("per_layer_config")
    heads: dict[str, HeadSizes] = {"sliding_attention": own, "full_attention": own}
    for name in dict.fromkeys(types):
        those = [per_layer.part(str(layer)) for layer, other in enumerate(types) if other == name]
        named = {
            HeadSizes(p.integer("num_key_value_heads", own.num_kv_heads), p.integer("head_dim", own.head_dim))
            for p in those
        }
        if len(named) > 1 or any(part.raw.keys() - {"num_key_value_heads", "head_dim"} for part in those):
            raise f.wrong("per_layer_config", f"sizes of heads, the same for every layer of the kind {name}")
        heads[name] = named.pop()
    return heads


def sharing_source(types: Sequence[str], layer: int, first_sharing: int) -> int:
    """The last layer of the same kind that keeps keys and values."""
    for source in reversed(range(first_sharing)):
        if types[source] == types[layer]:
            return source
    raise ConfigError(
        f"config.json: layer {layer} is to read the keys and values of an earlier layer of its kind, but there is none"
    )


def later_gemma(f: Fields) -> Switches:
    """What Gemma 2 and 3 share."""
    f.refuse("use_bidirectional_attention")
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
    return {
        **sizes(f, act=activation),
        "norm": "rms_plus_one",
        "embedding_scale": f.integer("hidden_size") ** 0.5,
        "qkv_bias": f.boolean("attention_bias"),
        "o_bias": f.boolean("attention_bias"),
    }

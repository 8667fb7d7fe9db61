"""What GGUF metadata says in config.json's words, of Gemma's architectures.

Each reader takes the architecture's own keys and the common config, as those of gguf_readers.py do.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.errors import GGUFError
from tokenglass.model.importers.gguf_readers import KEY_VALUE_HEADS, Config, layer_types, of_layers, without


def read_gemma(f: Fields, config: Config) -> Config:  # noqa: ARG001
    return {**config, "hidden_act": "gelu_pytorch_tanh"}


def read_gemma2(f: Fields, config: Config) -> Config:
    return {
        **gemma(config, largest=46),
        "sliding_window": f.integer("attention.sliding_window", 4096),
        "layer_types": layer_types(f, config["num_hidden_layers"], 2),
        "attn_logit_softcapping": f.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": f.number("final_logit_softcapping", 30.0),
    }


def read_gemma3(f: Fields, config: Config) -> Config:
    count, window = config["num_hidden_layers"], f.get("attention.sliding_window")
    return {
        **gemma(config, largest=62),
        "sliding_window": window or 4096,
        "layer_types": layer_types(f, count, 6) if window else ["full_attention"] * count,
        "rope_local_base_freq": f.number("rope.freq_base_swa", 1e4),
        "final_logit_softcapping": f.number_or_none("final_logit_softcapping"),
    }


def gemma(config: Config, *, largest: int) -> Config:
    """What the Gemma generations share. The largest models, known by their layers, scale by hidden size and heads."""
    scalar = config["head_dim"]
    if config["num_hidden_layers"] == largest:
        scalar = config["hidden_size"] // config["num_attention_heads"]
    own = {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": scalar}
    return {**without(config, "hidden_act"), **own}


def read_gemma4(f: Fields, config: Config) -> Config:
    """Heads of the common sizes are those of layers without a window. Where such layers have no matrix of values, their
    keys are their values."""
    types = layer_types(f, config["num_hidden_layers"], 6)
    if types[-1:] != ["full_attention"]:
        raise f.wrong("attention.sliding_window_pattern", "a last layer without a window")
    head_dim = f.integer("attention.key_length_swa", config["head_dim"])
    whole = {"attention.value_length_swa": head_dim, "rope.dimension_count_swa": head_dim}
    for key, size in {**whole, "rope.dimension_count": config["head_dim"]}.items():
        if f.integer(key, size) != size:
            raise f.wrong(key, f"{size}, the size of a head")
    sharing = f.integer("attention.shared_kv_layers", 0)
    if not 0 <= sharing < len(types):
        raise f.wrong("attention.shared_kv_layers", f"less than the {len(types)} layers")
    full = [layer for layer, name in enumerate(types[: len(types) - sharing]) if name == "full_attention"]
    kv_heads = heads_by_type(f, config, types)
    scaling = config["rope_scaling"] or {"rope_type": "default"}
    replaced = ("hidden_act", "mlp_bias", "rope_theta", "rope_scaling", "rope_dimensions")
    return {
        **without(config, *replaced),
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": head_dim,
        "global_head_dim": config["head_dim"],
        "num_key_value_heads": kv_heads.get("sliding_attention", kv_heads["full_attention"]),
        "num_global_key_value_heads": kv_heads["full_attention"],
        "attention_k_eq_v": bool(full) and config["value_layers"].isdisjoint(full),
        "num_kv_shared_layers": sharing,
        "use_double_wide_mlp": has_wide_mlps(f, config, sharing),
        "sliding_window": f.integer("attention.sliding_window"),
        "layer_types": types,
        "rope_parameters": {
            "full_attention": {**scaling, "rope_theta": config["rope_theta"]},
            "sliding_attention": {"rope_type": "default", "rope_theta": f.number("rope.freq_base_swa", 1e4)},
        },
        "hidden_size_per_layer_input": f.integer("embedding_length_per_layer_input", 0),
        "vocab_size_per_layer_input": config["vocab_size"],
        "final_logit_softcapping": f.number_or_none("final_logit_softcapping"),
        **gemma4_experts(f),
    }


def gemma4_experts(f: Fields) -> Config:
    """Beside the feed-forward of each layer, where the file says how many there are."""
    if not f.integer("expert_count", 0):
        return {}
    return {
        "enable_moe_block": True,
        "num_experts": f.integer("expert_count"),
        "top_k_experts": f.integer("expert_used_count"),
        "moe_intermediate_size": f.integer("expert_feed_forward_length"),
    }


def heads_by_type(f: Fields, config: Config, types: Sequence[str]) -> dict[str, int]:
    """Key-value heads of each kind of layer. Raises GGUFError where layers of one kind have different ones."""
    heads = f.get(of_layers(KEY_VALUE_HEADS)) or (config["num_key_value_heads"],) * len(types)
    pairs = set(zip(types, heads, strict=False))
    if len(heads) != len(types) or len(pairs) != len(set(types)):
        raise GGUFError(f"{KEY_VALUE_HEADS} is {quote(heads)}; expected one number for all layers of a kind")
    return dict(pairs)


def has_wide_mlps(f: Fields, config: Config, sharing: int) -> bool:
    """Whether the feed-forwards of the last layers, those without keys, are twice as wide as the others'."""
    widths, own = f.get(of_layers("feed_forward_length")), config["intermediate_size"]
    if widths is None:
        return False
    if widths != (own,) * (config["num_hidden_layers"] - sharing) + (2 * own,) * sharing:
        raise GGUFError(f"feed_forward_length is {quote(widths)}; expected twice as much in the last {sharing} layers")
    return True

"""What GGUF metadata says in config.json's words, of Gemma's architectures.

Each reader takes the architecture's own keys and the common config, as those of gguf_readers.py do.
"""

from __future__ import annotations

from tokenglass.model.config.fields import Fields
from tokenglass.model.importers.gguf_readers import Config, layer_types, without


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

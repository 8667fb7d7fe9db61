"""GGUF metadata as config.json and generation_config.json. What would change the numbers is mapped or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tokenglass.model.config.fields import Fields, quote, shown_name
from tokenglass.model.config.layer_kinds import MAX_LAYERS
from tokenglass.model.errors import GGUFError
from tokenglass.model.importers.gguf_architectures import (
    LONG_DIVISORS,
    ROPE_DIVISORS,
    SHORT_DIVISORS,
    architecture,
    layer_of,
    part_of,
)
from tokenglass.model.importers.gguf_file import GUESSING, GGUFFile
from tokenglass.model.importers.gguf_readers import KEY_VALUE_HEADS, of_layers, without

PER_LAYER = ("feed_forward_length", "attention.head_count", KEY_VALUE_HEADS)
# keys that change nothing, or change nothing while they hold this
NEUTRAL = {
    **dict.fromkeys(("rope.scaling.finetuned", "vocab_size", "attention.causal")),
    **dict.fromkeys(("expert_count", "expert_used_count"), 0),
}
DERIVED = ("query_norm", "value_layers")  # what only readers look at
OWN_NAMES = frozenset({"layers_without_attention", *map(of_layers, PER_LAYER)})  # what own_values adds
FEED_FORWARDS = ("feed_forward_length", "expert_feed_forward_length")  # a mixture may have no other
ROLES = (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
BETAS = ("beta_fast", "beta_slow")
STILL = np.float32(1e30)  # the divisor of a pair that does not turn
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}

Shapes = Mapping[str, tuple[int, ...]]
ReadTable = Callable[[str, int], Sequence[float] | None]  # a named table of so many numbers; None where there is none


def config_of(file: GGUFFile, dtype: str, read_table: ReadTable) -> dict[str, Any]:
    """config.json for a file whose matrices are stored in `dtype`. Raises GGUFError, ConfigError."""
    name = file.metadata.get("general.architecture")
    kind = architecture(name)
    f, shapes = Fields(own_values(file.metadata, f"{name}."), str(name)), {t.name: t.shape for t in file.tensors}
    embedding = shapes.get("token_embd.weight")
    if embedding is None:
        raise GGUFError("token_embd.weight is missing; the file holds no whole model")
    config = {
        "model_type": kind.model_type,
        "architectures": [kind.model_class],
        "vocab_size": embedding[0],
        **common(f, shapes, read_table),
        **{f"{ours}_token_id": file.metadata.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in ROLES},
        "dtype": dtype,
    }
    config = without(kind.read(f, config), *DERIVED)
    if config.pop("rope_dimensions", config.get("head_dim")) != config.get("head_dim"):
        raise GGUFError(f"{name}.rope.dimension_count is not supported; a head of {name} rotates whole")
    for key, value in f.raw.items():
        if key not in f.asked and not (key in NEUTRAL and NEUTRAL[key] in (None, value)):
            raise GGUFError(f"{name}.{shown_name(key)} {quote(value)} is not supported; it would change the numbers")
    return config


def own_values(metadata: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The architecture's own keys: a number per layer is that of the first, and a float32 the decimal that it was meant
    to be. `layers_without_attention` are those that have no heads; keys that end in `_of_layers` have the numbers of
    all layers where they differ. Raises GGUFError."""
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith((prefix, "xielu."))}
    for key in own.keys() & OWN_NAMES:
        raise GGUFError(f"{prefix}{key} {quote(own[key])} is not supported; it would change the numbers")
    heads = own.get(KEY_VALUE_HEADS)
    if isinstance(heads, tuple) and 0 in heads:
        own[KEY_VALUE_HEADS] = tuple(count for count in heads if count)
        own["layers_without_attention"] = tuple(count == 0 for count in heads)
    for key in PER_LAYER:
        values = own.get(key)
        if isinstance(values, tuple) and values:
            own[key] = values[0]
            if len(set(values)) > 1:
                own[of_layers(key)] = values
    return {key: short(value) if isinstance(value, float) else value for key, value in own.items()}


def common(f: Fields, shapes: Shapes, read_table: ReadTable) -> dict[str, Any]:
    """What all architectures say, in Llama's words; `rope_dimensions` are numbers of a head that rotate; `query_norm`:
    whether queries have a norm; `value_layers`: those with a matrix of values. Layers at the end that guess further
    tokens are left out."""
    hidden_size, heads = f.integer("embedding_length"), f.integer("attention.head_count")
    head_dim = f.integer("attention.key_length", hidden_size // max(heads, 1))
    if f.integer("attention.value_length", head_dim) != head_dim:
        raise f.wrong("attention.value_length", f"{head_dim}, as a key; that they differ is not supported")
    theta, rotary = f.number("rope.freq_base", 10000.0), f.integer("rope.dimension_count", head_dim)
    if not 0 < theta < math.inf:
        raise f.wrong("rope.freq_base", "a positive number")
    layer_norm, layers = "attention.layer_norm_epsilon" in f.raw, f.integer("block_count") - f.integer(GUESSING, 0)
    if layers > MAX_LAYERS:  # before a list of them is made
        raise f.wrong("block_count", f"at most {MAX_LAYERS:,} layers")
    return {
        "hidden_size": hidden_size,
        "intermediate_size": f.integer(next((key for key in FEED_FORWARDS if key in f.raw), FEED_FORWARDS[0])),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": f.integer(KEY_VALUE_HEADS, heads),
        "head_dim": head_dim,
        "max_position_embeddings": f.integer("context_length", 2048),
        **({} if layer_norm else {"rms_norm_eps": f.number("attention.layer_norm_rms_epsilon")}),
        "rope_theta": theta,
        "rope_scaling": rope_scaling(f, theta, rotary, read_table),
        "rope_dimensions": rotary,
        "hidden_act": "silu",
        "attention_bias": not shapes.keys().isdisjoint(("blk.0.attn_q.bias", "blk.0.attn_qkv.bias")),
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
        "query_norm": "blk.0.attn_q_norm.weight" in shapes,
        "value_layers": {layer_of(name) for name in shapes if part_of(name) == "attn_v"},
        "tie_word_embeddings": "output.weight" not in shapes,
    }


def rope_scaling(f: Fields, theta: float, dim: int, read_table: ReadTable) -> dict[str, Any] | None:
    """The rope_scaling of config.json, None where positions are not scaled. Raises GGUFError, ConfigError."""
    factor = f.number("rope.scaling.factor", f.number("rope.scale_linear", 1.0))
    kind = f.text("rope.scaling.type", "linear" if factor != 1.0 else "none")
    sharper = f.number("rope.scaling.attn_factor", 1.0)
    divisors, long, short_ones = (
        read_table(name, max(0, dim // 2)) for name in (ROPE_DIVISORS, LONG_DIVISORS, SHORT_DIVISORS)
    )
    if long is not None and short_ones is not None:
        return {"rope_type": "longrope", "long_factor": long, "short_factor": short_ones, "attention_factor": sharper}
    if kind == "yarn":
        return yarn_scaling(f, factor, sharper)
    if sharper != 1.0:
        raise f.wrong("rope.scaling.attn_factor", "1 for a rope that is neither longrope nor yarn")
    if divisors is not None:
        if kind != "none":
            raise GGUFError(f"{ROPE_DIVISORS} together with rope scaling {quote(kind)} is not supported")
        return proportional_scaling(divisors) or llama3_scaling(theta, dim, divisors)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    raise GGUFError(f"rope.scaling.type {quote(kind)} is not supported; it would change the numbers")


def yarn_scaling(f: Fields, factor: float, sharper: float) -> dict[str, Any]:
    """YaRN's scaling; `sharper` comes on top of its own sharpening, as llama.cpp has it."""
    own = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    betas = {key: f.number(f"rope.scaling.yarn_{key}") for key in BETAS if f"rope.scaling.yarn_{key}" in f.raw}
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": f.integer("rope.scaling.original_context_length"),
        **betas,
        **({} if sharper == 1.0 else {"attention_factor": sharper * own}),
    }


def proportional_scaling(divisors: Sequence[float]) -> dict[str, Any] | None:
    """A rope in which only the first pairs of a head turn: the others are divided by 1e30. None for another one."""
    pairs = sum(divisor == 1.0 for divisor in divisors)
    if pairs == len(divisors) or [*divisors] != [1.0] * pairs + [float(STILL)] * (len(divisors) - pairs):
        return None
    share, dim = pairs / len(divisors), 2 * len(divisors)
    if int(share * dim // 2) < pairs:  # as config.json is read
        share = math.nextafter(share, 1.0)
    return {"rope_type": "proportional", "partial_rotary_factor": share}


def llama3_scaling(theta: float, head_dim: int, factors: Sequence[float]) -> dict[str, Any] | None:
    """Llama 3.1's scaling, which a file holds only as its result, one divisor per rotary frequency.

    Its factor is the largest divisor; the other three numbers are the ones that all its models use. Where they do not
    give the same divisors, the scaling is another one. Raises GGUFError.
    """
    if not all(0 < factor < math.inf for factor in factors):
        raise GGUFError("rope_freqs.weight holds a number that is not positive; the file is damaged")
    if all(factor == 1.0 for factor in factors):
        return None
    scaling = {"rope_type": "llama3", "factor": float(max(factors, default=1.0)), **LLAMA3}
    expected = [llama3_divisor(theta ** (-2 * k / head_dim), scaling) for k in range(head_dim // 2)]
    if len(factors) != len(expected) or not all(map(lambda a, b: math.isclose(a, b, rel_tol=1e-4), factors, expected)):
        raise GGUFError("rope_freqs.weight is not the scaling of Llama 3.1; it is not supported")
    return scaling


def llama3_divisor(frequency: float, scaling: Mapping[str, Any]) -> float:
    """By how much one rotary frequency is divided (Llama 3.1: Grattafiori et al. 2024, arXiv 2407.21783)."""
    turns = frequency * scaling["original_max_position_embeddings"] / (2 * math.pi)
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    kept = min(max((turns - low) / (high - low), 0.0), 1.0)  # 0: divided in full, 1: as it was
    return float(1 / ((1 - kept) / factor + kept))


def short(value: float) -> float:
    """A float32 as the decimal it was meant to be: 1e-05, not 9.999999747378752e-06."""
    with np.errstate(all="ignore"):
        return float(str(np.float32(value)))

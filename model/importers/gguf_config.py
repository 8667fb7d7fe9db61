"""GGUF metadata as config.json and generation_config.json. What would change the numbers is mapped or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenglass.model.config.fields import quote, shown_name
from tokenglass.model.errors import GGUFError
from tokenglass.model.importers.gguf_architectures import architecture
from tokenglass.model.importers.gguf_file import GGUFFile

# keys of an architecture that `config_of` reads
READ = {
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count"),
    *("rope.scaling.type", "rope.scaling.factor", "rope.scale_linear", "rope.scaling.original_context_length"),
}
# keys that change nothing, or change nothing while they hold this
NEUTRAL = {"rope.scaling.finetuned": None, "expert_count": 0, "expert_used_count": 0, "rope.scaling.attn_factor": 1.0}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def config_of(file: GGUFFile, dtype: str, read_factors: Callable[[int], Sequence[float] | None]) -> dict[str, Any]:
    """config.json for a file whose matrices are stored in `dtype`. Raises GGUFError.

    `read_factors` reads the divisors of so many rotary frequencies, which the file may hold as a tensor.
    """
    name = file.metadata.get("general.architecture")
    kind = architecture(name)
    fields = {key.removeprefix(f"{name}."): value for key, value in file.metadata.items() if key.startswith(f"{name}.")}
    for key, value in fields.items():
        if key not in READ and not (key in NEUTRAL and NEUTRAL[key] in (None, value)):
            raise GGUFError(f"{name}.{shown_name(key)} {quote(value)} is not supported; it would change the numbers")
    hidden_size, heads = integer(fields, "embedding_length"), integer(fields, "attention.head_count")
    head_dim = integer(fields, "attention.key_length", hidden_size // max(heads, 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        if integer(fields, key, head_dim) != head_dim:
            raise GGUFError(
                f"{name}.{key} is {quote(fields[key])} and a head {head_dim}; that they differ is not supported"
            )
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    embedding = shapes.get("token_embd.weight")
    if embedding is None:
        raise GGUFError("token_embd.weight is missing; the file holds no whole model")
    theta = number(fields, "rope.freq_base", 10000.0)
    if not 0 < theta < math.inf:
        raise GGUFError(f"rope.freq_base is {theta}; expected a positive number")
    return {
        "model_type": kind.model_type,
        "architectures": [kind.model_class],
        "vocab_size": embedding[0],
        "hidden_size": hidden_size,
        "intermediate_size": integer(fields, "feed_forward_length"),
        "num_hidden_layers": integer(fields, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": integer(fields, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": integer(fields, "context_length", 2048),
        "rms_norm_eps": short(number(fields, "attention.layer_norm_rms_epsilon")),
        "rope_theta": theta,
        "rope_scaling": rope_scaling(fields, theta, head_dim, read_factors(max(0, head_dim // 2))),
        "hidden_act": "silu",
        **({"attention_bias": "blk.0.attn_q.bias" in shapes} if kind.model_type == "llama" else {}),
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
        "tie_word_embeddings": "output.weight" not in shapes,
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.metadata.get("tokenizer.ggml.eos_token_id"),
        "dtype": dtype,
    }


def rope_scaling(
    fields: Mapping[str, Any], theta: float, head_dim: int, factors: Sequence[float] | None
) -> dict[str, Any] | None:
    """The rope_scaling of config.json, None where positions are not scaled. Raises GGUFError."""
    factor = number(fields, "rope.scaling.factor", number(fields, "rope.scale_linear", 1.0))
    kind = fields.get("rope.scaling.type", "linear" if factor != 1.0 else "none")
    if factors is not None:
        if kind != "none":
            raise GGUFError(f"rope_freqs.weight together with rope scaling {quote(kind)} is not supported")
        return llama3_scaling(theta, head_dim, factors)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = integer(fields, "rope.scaling.original_context_length")
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise GGUFError(f"rope.scaling.type {quote(kind)} is not supported; it would change the numbers")


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
    return float(f"{value:.7g}")


def integer(fields: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = fields.get(key, default)
    if isinstance(value, tuple):  # a number per layer
        if len(set(value)) != 1:
            raise GGUFError(f"{key} differs between layers; that is not supported")
        value = value[0]
    if type(value) is not int:
        raise GGUFError(f"{key} is {quote(value)}; expected a whole number")
    return value


def number(fields: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = fields.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GGUFError(f"{key} is {quote(value)}; expected a number")
    return float(value)

"""Small GGUF files, written with the gguf library from the tiny models of tiny.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tiny
import torch
from safetensors.torch import load_file

TYPES = gguf.GGMLQuantizationType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
}


def write_gguf(
    path: Path,
    checkpoint: Path,
    *,
    quantised: Any = TYPES.F32,
    tokenizer: dict[str, Any] | None = None,
    rope_factors: np.ndarray | None = None,
    **more: Any,
) -> Path:
    """A Llama or Qwen checkpoint as llama.cpp's converter would write it; `more` is metadata, None leaves a key out."""
    config = json.loads((checkpoint / "config.json").read_text())
    name, head_counts = config["model_type"], (config["num_attention_heads"], config["num_key_value_heads"])
    heads = dict(zip(("attn_q", "attn_k"), head_counts, strict=True)) if name == "llama" else {}
    metadata = {
        f"{name}.block_count": config["num_hidden_layers"],
        f"{name}.context_length": config["max_position_embeddings"],
        f"{name}.embedding_length": config["hidden_size"],
        f"{name}.feed_forward_length": config["intermediate_size"],
        f"{name}.attention.head_count": head_counts[0],
        f"{name}.attention.head_count_kv": head_counts[1],
        f"{name}.rope.freq_base": config["rope_parameters"]["rope_theta"],
        f"{name}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        **(byte_level_metadata() if tokenizer is None else tokenizer),
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    writer = gguf.GGUFWriter(path, name)
    for key, value in metadata.items():
        add(writer, key, value)
    for tensor_name, tensor in load_file(checkpoint / "model.safetensors").items():
        stem, suffix = tensor_name.rsplit(".", 1)
        layer, _, part = stem.removeprefix("model.layers.").partition(".")
        stored = NAMES[stem] if stem in NAMES else f"blk.{layer}.{NAMES[part]}"
        values = interleave(tensor, heads.get(stored.rpartition(".")[2])).float().numpy()
        kind = quantised if tensor.dim() == 2 else TYPES.F32
        writer.add_tensor(f"{stored}.{suffix}", gguf.quantize(values, kind), raw_dtype=kind)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleave(rows: torch.Tensor, heads: int | None) -> torch.Tensor:
    """Rows of q and k in the order of llama.cpp's rotation: the two halves of a head woven together."""
    if heads is None:
        return rows
    first, second = rows.view(heads, 2, -1, *rows.shape[1:]).unbind(1)
    return torch.stack((first, second), dim=2).reshape(rows.shape)


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case None:
            return
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, list(value))


def byte_level_metadata(pre: str = "gpt-2", **roles: Any) -> dict[str, Any]:
    """The tokenizer of tiny.py as a GGUF file lists it, with an end-of-turn token."""
    content = json.loads(tiny.byte_level_tokenizer().to_str())
    special = {token["content"] for token in content["added_tokens"]}
    tokens = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    return tokenizer_metadata("gpt2", tokens, [CONTROL if t in special else NORMAL for t in tokens], roles) | {
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.merges": tuple(merges),
    }


def sentencepiece_metadata(**roles: Any) -> dict[str, Any]:
    """A SentencePiece vocabulary: scores fall with the id, a token per byte."""
    vocab = json.loads(tiny.byte_fallback_tokenizer().to_str())["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(tokens) - 259)]
    roles = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **roles}
    scores = [float(-token_id) if token_id >= 259 else 0.0 for token_id in range(len(tokens))]
    return tokenizer_metadata("llama", tokens, types, roles) | {"tokenizer.ggml.scores": tuple(scores)}


def tokenizer_metadata(kind: str, tokens: list[str], types: list[int], roles: dict[str, Any]) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": tuple(tokens),
        "tokenizer.ggml.token_type": tuple(types),
        **{f"tokenizer.ggml.{role}": value for role, value in roles.items()},
    }


def random_blocks(kind: Any, rows: int, length: int) -> np.ndarray:
    """Random bytes in the shape of a quantised matrix, for types that the library reads but does not write."""
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    return np.random.default_rng(0).integers(0, 256, (rows, length // block * nbytes), np.uint8)

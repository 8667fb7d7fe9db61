"""The metadata of a GGUF file, as llama.cpp's converter writes it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tiny

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # kinds of tokens
KEY_AND_VALUE = ("attention.key_length", "attention.value_length")
EPSILONS = {
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "norm_epsilon": "attention.layer_norm_epsilon",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "norm_eps": "attention.layer_norm_rms_epsilon",
}
NUMBERS = {
    "logit_scale": "logit_scale",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "attention_multiplier": "attention.scale",
    "logits_scaling": "logit_scale",
    "conv_L_cache": "shortconv.l_cache",
    "num_experts": "expert_count",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "top_k_experts": "expert_used_count",
    "n_routed_experts": "expert_count",
    "moe_topk": "expert_used_count",
    "shared_intermediate_size": "expert_shared_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
}

SIGMOID = {
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
    "routed_scaling_factor": "expert_weights_scale",
    "norm_topk_prob": "expert_weights_norm",
}


def own_metadata(config: dict[str, Any]) -> dict[str, Any]:
    """The architecture's keys, as the converter writes them."""
    if config["model_type"] == "gpt2":
        return {
            "block_count": config["n_layer"],
            "context_length": config["n_positions"],
            "embedding_length": config["n_embd"],
            "feed_forward_length": config["n_inner"] or 4 * config["n_embd"],
            "attention.head_count": config["n_head"],
            "attention.layer_norm_epsilon": config["layer_norm_epsilon"],
        }
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    ropes = config.get("rope_parameters") or {}
    rope = ropes.get("full_attention", ropes)
    dim = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    window = config.get("sliding_window")
    return {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        **({"feed_forward_length": size} if (size := feed_forward_size(config)) else {}),
        "attention.head_count": heads,
        "attention.head_count_kv": heads_of_layers(config, kv_heads),
        "rope.freq_base": rope["rope_theta"],
        **({"rope.dimension_count": dim} if dim != head_dim or config["model_type"] == "phi3" else {}),
        **({} if head_dim * heads == config["hidden_size"] else dict.fromkeys(KEY_AND_VALUE, head_dim)),
        **({"rope.freq_base_swa": ropes["sliding_attention"]["rope_theta"]} if "sliding_attention" in ropes else {}),
        **expert_metadata(config),
        **(
            {"attention.sliding_window": window}
            if window and config["model_type"] not in ("qwen2", "qwen2_moe")
            else {}
        ),
        **{new: config[old] for old, new in EPSILONS.items() if old in config},
        **({"attention.layer_norm_epsilon": 1e-5} if config["model_type"] == "olmo" else {}),
        **delta_metadata(config),
        **{key: config[key] for key in ("use_parallel_residual",) if key in config},
        **{new: config[old] for old, new in NUMBERS.items() if config.get(old) is not None},
        **rope_metadata(rope),
        **(gemma4_metadata(config) if config["model_type"] == "gemma4_text" else {}),
    }


def feed_forward_size(config: dict[str, Any]) -> int:
    """Of lfm2 two thirds of what its config says, rounded up."""
    size = int(config.get("intermediate_size") or 0)
    if config["model_type"] != "lfm2":
        return size
    multiple = int(config["block_multiple_of"])
    return -(-int(2 * size / 3) // multiple) * multiple


def heads_of_layers(config: dict[str, Any], heads: int) -> int | tuple[int, ...]:
    """Of lfm2 and its mixtures a number for each layer, 0 where it has a convolution."""
    if config["model_type"] not in ("lfm2", "lfm2_moe"):
        return heads
    return tuple(heads if name == "full_attention" else 0 for name in config["layer_types"])


def expert_metadata(config: dict[str, Any]) -> dict[str, Any]:
    """The size of an expert, where it is not feed_forward_length; and what lfm2_moe says beside."""
    size = config["intermediate_size"] if config["model_type"] == "gpt_oss" else config.get("moe_intermediate_size")
    dense = {"leading_dense_block_count": config.get("num_dense_layers"), "expert_gating_func": 2}
    if config["model_type"] in ("minimax_m2", "hunyuan_v1_moe"):
        size = config["intermediate_size"]
    return {
        **({"expert_feed_forward_length": size} if size else {}),
        **({"expert_shared_feed_forward_length": size} if config["model_type"] == "hunyuan_v1_moe" else {}),
        **({"expert_gating_func": 2} if config["model_type"] in ("minimax_m2", "glm4_moe", "dots1") else {}),
        **({new: config[old] for old, new in SIGMOID.items()} if config["model_type"] in ("glm4_moe", "dots1") else {}),
        **(dense if config["model_type"] == "lfm2_moe" else {}),
    }


def delta_metadata(config: dict[str, Any]) -> dict[str, Any]:
    """Of qwen3_5, whose feed-forward has no size of its own in a mixture, and of qwen3_next."""
    if "linear_num_value_heads" not in config:
        return {}
    sections = {"rope.dimension_sections": (11, 11, 10, 0)} if config["model_type"] != "qwen3_next" else {}
    heads = config["linear_num_value_heads"]
    return {
        "ssm.conv_kernel": config["linear_conv_kernel_dim"],
        "ssm.state_size": config["linear_key_head_dim"],
        "ssm.group_count": config["linear_num_key_heads"],
        "ssm.time_step_rank": heads,
        "ssm.inner_size": heads * config["linear_value_head_dim"],
        "full_attention_interval": 4,
        **sections,
    }


def gemma4_metadata(config: dict[str, Any]) -> dict[str, Any]:
    """The sizes of both kinds of heads; of key-value heads and feed-forwards a number for each layer."""
    types, sharing = config["layer_types"], config["num_kv_shared_layers"]
    size, heads, width = config["head_dim"], config["num_key_value_heads"], config["intermediate_size"]
    full = full_heads(config)
    wide = len(types) - sharing if config["use_double_wide_mlp"] else len(types)
    return {
        "attention.shared_kv_layers": sharing,
        "embedding_length_per_layer_input": config["hidden_size_per_layer_input"],
        "attention.sliding_window_pattern": [name == "sliding_attention" for name in types],
        **dict.fromkeys((*KEY_AND_VALUE, "rope.dimension_count"), full["head_dim"]),
        **{f"{key}_swa": size for key in (*KEY_AND_VALUE, "rope.dimension_count")},
        "feed_forward_length": [width if layer < wide else 2 * width for layer in range(len(types))],
        "attention.head_count_kv": [
            full["num_key_value_heads"] if name == "full_attention" else heads for name in types
        ],
    }


def full_heads(config: dict[str, Any]) -> dict[str, int]:
    """The sizes of the heads of gemma4's layers without a window."""
    layer = str(config["layer_types"].index("full_attention"))
    return {"num_key_value_heads": config["num_key_value_heads"], **config["per_layer_config"][layer]}


def gemma4_divisors(config: dict[str, Any]) -> np.ndarray:
    """Of the rotary frequencies of gemma4's layers without a window: 1e30 for pairs that do not turn."""
    dim = full_heads(config)["head_dim"]
    pairs = int(dim * config["rope_parameters"]["full_attention"]["partial_rotary_factor"] / 2)
    return np.array([1.0] * pairs + [1e30] * (dim // 2 - pairs), np.float32)


def rope_metadata(rope: dict[str, Any]) -> dict[str, Any]:
    trained = {"rope.scaling.original_context_length": rope.get("original_max_position_embeddings")}
    match rope["rope_type"]:
        case "linear":
            return {"rope.scaling.type": "linear", "rope.scaling.factor": rope["factor"]}
        case "yarn":
            growth = {
                "rope.scaling.yarn_log_multiplier": rope.get("mscale_all_dim"),
                "attention.temperature_scale": rope.get("llama_4_scaling_beta"),
            }
            return {"rope.scaling.type": "yarn", "rope.scaling.factor": rope["factor"], **trained, **growth}
        case "longrope":
            return {"rope.scaling.attn_factor": rope["attention_factor"], **trained}
        case _:
            return {}


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


def sentencepiece_lines_metadata(**roles: Any) -> dict[str, Any]:
    """The tokenizer of gemma4: the same with merges, which do not cross line ends, and tokens for several of these."""
    content = json.loads(tiny.byte_fallback_tokenizer().to_str())["model"]
    tokens = [*sorted(content["vocab"], key=content["vocab"].get), "\n", "\n\n", "\n\n\n"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(tokens) - 259)]
    roles = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "add_space_prefix": False, **roles}
    merges = (*(" ".join(merge) for merge in content["merges"]), "\n \n", "\n\n \n")
    return tokenizer_metadata("gemma4", tokens, types, roles) | {
        "tokenizer.ggml.scores": (0.0,) * len(tokens),
        "tokenizer.ggml.merges": merges,
    }


def tokenizer_metadata(kind: str, tokens: list[str], types: list[int], roles: dict[str, Any]) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": tuple(tokens),
        "tokenizer.ggml.token_type": tuple(types),
        **{f"tokenizer.ggml.{role}": value for role, value in roles.items()},
    }

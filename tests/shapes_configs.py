"""config.json of popular families, small."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "use_cache": True,
    "torch_dtype": "float32",
}


def llama(**more: Any) -> Json:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **SIZES,
        "max_position_embeddings": 2048,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "bos_token_id": "bos",
        "eos_token_id": "eos",
        **more,
    }


def mistral(**more: Any) -> Json:
    return llama(
        architectures=["MistralForCausalLM"], model_type="mistral", max_position_embeddings=512, rope_theta=10000.0
    ) | {"sliding_window": 64, **more}


def qwen(kind: str, **more: Any) -> Json:
    own = {"use_sliding_window": False, "sliding_window": 512, "max_window_layers": 2, "rope_theta": 1000000.0}
    return llama(
        architectures=[f"{kind.capitalize()}ForCausalLM"], model_type=kind, attention_dropout=0.0, rms_norm_eps=1e-6
    ) | {**own, **more}


def gemma(version: int, **more: Any) -> Json:
    own = {
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 32,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "cache_implementation": "hybrid",
        "pad_token_id": 0,
    }
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    new = {"rope_local_base_freq": 10000, "rope_theta": 1000000, "sliding_window_pattern": 2}
    kind = {2: "gemma2", 3: "gemma3_text"}[version]
    base = llama(model_type=kind, architectures=[f"Gemma{version}ForCausalLM"], rms_norm_eps=1e-6)
    del base["tie_word_embeddings"]
    return {**base, **own, **(caps if version == 2 else {**new, **dict.fromkeys(caps)}), **more}


def neox(**more: Any) -> Json:
    own = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        **own,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 512,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "bos_token_id": "bos",
        "eos_token_id": "eos",
        **more,
    }


def gpt2(**more: Any) -> Json:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_ctx": 256,
        "n_positions": 256,
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 2,
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "bos_token_id": "bos",
        "eos_token_id": "eos",
        **more,
    }


def phi3(**more: Any) -> Json:
    return llama(architectures=["Phi3ForCausalLM"], model_type="phi3", rope_theta=10000.0) | {
        "original_max_position_embeddings": 2048,
        "sliding_window": 2047,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "attention_bias": False,
        "pad_token_id": "<|endoftext|>",
        **more,
    }


LLAMA3_ROPE = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}

"""config.json files as people have them, abridged where a field cannot matter, mean what they should."""

from __future__ import annotations

from typing import Any

import pytest

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.rope_config import Llama3, LongRope


def config(model_type: str, sizes: tuple[int, ...], rest: dict[str, Any]) -> dict[str, Any]:
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    )
    return {
        "model_type": model_type,
        "use_cache": True,
        "initializer_range": 0.02,
        **dict(zip(names, sizes, strict=True)),
        **rest,
    }


LLAMA3 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
SUMMARY = {"summary_activation": None, "summary_type": "cls_index", "task_specific_params": {"text-generation": {}}}
GPT2_DROP = {"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1}
PHI_FACTORS = {"long_factor": [1.5] * 48, "short_factor": [1.05] * 48}
PHI = {"original_max_position_embeddings": 4096, "sliding_window": 262144, "embd_pdrop": 0.0, "attention_bias": False}
REAL: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": config(
        "llama",
        (49152, 576, 1536, 30, 9, 3, 8192),
        {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1, "rope_interleaved": False}
        | {"rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True, "is_llama_config": True}
        | {"hidden_act": "silu", "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16", "transformers.js_config": {}},
    ),
    "Llama-3.2-1B": config(
        "llama",
        (128256, 2048, 8192, 16, 32, 8, 131072),
        {"head_dim": 64, "rope_scaling": LLAMA3, "rope_theta": 500000.0, "tie_word_embeddings": True},
    ),
    "Mistral-7B-v0.1": config(
        "mistral", (32000, 4096, 14336, 32, 32, 8, 32768), {"sliding_window": 4096, "rope_theta": 10000.0}
    ),
    "Mistral-7B-v0.3": config(
        "mistral", (32768, 4096, 14336, 32, 32, 8, 32768), {"sliding_window": None, "rope_theta": 1e6}
    ),
    "Qwen2.5-0.5B": config(
        "qwen2",
        (151936, 896, 4864, 24, 14, 2, 32768),
        {"max_window_layers": 24, "rope_theta": 1e6, "sliding_window": 32768, "use_sliding_window": False}
        | {"tie_word_embeddings": True, "use_mrope": False, "attention_dropout": 0.0},
    ),
    "Qwen3-0.6B": config(
        "qwen3",
        (151936, 1024, 3072, 28, 16, 8, 40960),
        {"attention_bias": False, "head_dim": 128, "max_window_layers": 28, "rope_scaling": None}
        | {"rope_theta": 1000000, "sliding_window": None, "use_sliding_window": False, "tie_word_embeddings": True},
    ),
    "gemma-2-2b": config(
        "gemma2",
        (256000, 2304, 9216, 26, 8, 4, 8192),
        {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "cache_implementation": "hybrid"}
        | {"head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
        | {"query_pre_attn_scalar": 256, "sliding_window": 4096, "rope_theta": 10000.0},
    ),
    "gemma-3-1b-it": config(
        "gemma3_text",
        (262144, 1152, 6912, 26, 4, 1, 32768),
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "head_dim": 256, "eos_token_id": [1, 106]}
        | {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000}
        | {"rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6},
    ),
    "gpt2": {"model_type": "gpt2", "vocab_size": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}
    | {"n_positions": 1024, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, **SUMMARY, **GPT2_DROP},
    "pythia-70m": {"model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 512, "intermediate_size": 2048}
    | {"num_attention_heads": 8, "num_hidden_layers": 6, "max_position_embeddings": 2048, "rotary_pct": 0.25}
    | {"rotary_emb_base": 10000, "use_parallel_residual": True, "tie_word_embeddings": False}
    | {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "torch_dtype": "float16"},
    "Phi-3-mini-128k": config(
        "phi3", (32064, 3072, 8192, 32, 32, 32, 131072), {**PHI, "rope_scaling": {**PHI_FACTORS, "type": "su"}}
    ),
    "Phi-4-mini": config(
        "phi3",
        (200064, 3072, 8192, 32, 24, 8, 131072),
        {**PHI, "partial_rotary_factor": 0.75, "rope_scaling": {**PHI_FACTORS, "type": "longrope"}}
        | {"lm_head_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "full_attn_mod": 1},
    ),
    "OLMo-2-1B": config("olmo2", (100352, 2048, 8192, 16, 16, 16, 4096), {"rope_scaling": None, "rope_theta": 500000}),
    "LFM2-8B-A1B": config(
        "lfm2_moe",
        (65536, 2048, 7168, 24, 32, 8, 128000),
        {"conv_L_cache": 3, "conv_bias": False, "norm_eps": 1e-5, "rope_theta": 1000000.0, "torch_dtype": "bfloat16"}
        | {"moe_intermediate_size": 1792, "num_dense_layers": 2, "num_experts": 32, "num_experts_per_tok": 4}
        | {"norm_topk_prob": True, "routed_scaling_factor": 1.0, "use_expert_bias": True}
        | {"layer_types": ["full_attention" if layer in (2, 6, 10, 14, 18, 21) else "conv" for layer in range(24)]},
    ),
    "Qwen3-Next-80B-A3B": config(
        "qwen3_next",
        (151936, 2048, 5120, 48, 16, 2, 262144),
        {"decoder_sparse_step": 1, "full_attention_interval": 4, "head_dim": 256, "mlp_only_layers": []}
        | {"linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128}
        | {"linear_num_key_heads": 16, "linear_num_value_heads": 32, "moe_intermediate_size": 512}
        | {"norm_topk_prob": True, "num_experts": 512, "num_experts_per_tok": 10, "partial_rotary_factor": 0.25}
        | {"rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 10000000, "shared_expert_intermediate_size": 512}
        | {"tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_sliding_window": False},
    ),
    "SmolLM3-3B": config(
        "smollm3",
        (128256, 2048, 11008, 36, 16, 4, 65536),
        {"layer_types": ["full_attention"] * 36, "no_rope_layers": [1, 1, 1, 0] * 9, "no_rope_layer_interval": 4}
        | {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 28, "pretraining_tp": 2}
        | {"rope_scaling": None, "rope_theta": 5000000.0, "attention_bias": False, "mlp_bias": False},
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_it_is_read(name: str) -> None:
    raw = REAL[name]
    config = ModelConfig.from_hf(raw)
    assert config.num_layers == raw.get("num_hidden_layers", raw.get("n_layer"))
    assert config.max_positions == raw.get("max_position_embeddings", 1024)


def windows(name: str) -> list[int | None]:
    return [kind.window for kind in ModelConfig.from_hf(REAL[name]).layers]


def test_windows_are_where_they_belong() -> None:
    assert windows("Mistral-7B-v0.1") == [4096] * 32
    assert windows("gemma-2-2b") == [4096, None] * 13
    assert windows("gemma-3-1b-it") == ([512] * 5 + [None]) * 4 + [512] * 2
    for name in ("Mistral-7B-v0.3", "Qwen2.5-0.5B", "Phi-3-mini-128k", "SmolLM3-3B"):  # as long as the context: none
        assert set(windows(name)) == {None}


def test_ropes_are_what_they_should_be() -> None:
    kinds = {name: ModelConfig.from_hf(raw).layers for name, raw in REAL.items()}
    gemma = [kind.rope.theta for kind in kinds["gemma-3-1b-it"][:6] if kind.rope is not None]
    assert gemma == [1e4] * 5 + [1e6]
    assert [kind.rope is not None for kind in kinds["SmolLM3-3B"]] == [True, True, True, False] * 9
    assert {kind.rope for kind in kinds["gpt2"]} == {None}
    pythia, llama, phi = (kinds[name][0].rope for name in ("pythia-70m", "Llama-3.2-1B", "Phi-4-mini"))
    assert pythia is not None
    assert (pythia.dim, pythia.theta) == (16, 1e4)
    assert llama is not None
    assert llama.scaling == Llama3(32.0, 8192, 1.0, 4.0)
    assert phi is not None
    assert phi.dim == 96
    assert isinstance(phi.scaling, LongRope)
    assert phi.scaling.attention_factor == pytest.approx(1.1902380714238083)  # as Phi-3's own code computes it

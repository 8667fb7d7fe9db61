"""Random checkpoints of every family, as transformers writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
import torch
from closeness import assert_close
from torch import Tensor

from tokenglass.model.torch_engine.engine import TorchEngine

BORDER, LIMIT, WINDOW = 96, 256, 16  # trained length of the scaled ropes, context, sliding window
SIZES: dict[str, Any] = {
    "vocab_size": tiny.VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LIMIT,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GEMMA = {"head_dim": 12, "query_pre_attn_scalar": 10, "sliding_window": WINDOW}
SLIDING_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA4 = {
    **SIZES,
    "num_hidden_layers": 5,
    "layer_types": [*SLIDING_TYPES[:2], *SLIDING_TYPES[1:], "full_attention"],
    "head_dim": 12,
    "global_head_dim": 16,
    "sliding_window": WINDOW,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 16,
    "tie_word_embeddings": False,
    "vocab_size_per_layer_input": tiny.VOCAB_SIZE,
    "use_double_wide_mlp": True,
}
GPT2 = {"vocab_size": tiny.VOCAB_SIZE, "n_embd": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3}
NEOX = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
OFF = {"rope_type": "default", "rope_theta": 5000.0}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": BORDER}
YARN = {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": BORDER}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 5000.0,
    "original_max_position_embeddings": BORDER,
    "short_factor": [1.0, 1.1, 1.2],
    "long_factor": [1.5, 2.0, 4.0],
}
PHI3 = {"num_attention_heads": 2, "hidden_size": 16, "original_max_position_embeddings": BORDER}  # heads of 8
SLIDE_LAST = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
DELTA = {
    **dict.fromkeys(("linear_num_key_heads", "linear_conv_kernel_dim"), 2),
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
}
SIGMOID = {**EXPERTS, "n_routed_experts": 6, "n_shared_experts": 2, "routed_scaling_factor": 1.5}
del SIGMOID["num_experts"]
BASE = {key: value for key, value in SIZES.items() if key not in ("initializer_range", "pad_token_id")}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SIZES),
    "llama, biases": ("llama", {**SIZES, "attention_bias": True, "mlp_bias": True}),
    "llama, gelu": ("llama", {**SIZES, "hidden_act": "gelu"}),
    "llama, linear": ("llama", {**SIZES, "rope_parameters": {**OFF, "rope_type": "linear", "factor": 4.0}}),
    "llama, dynamic": (
        "llama",
        {**SIZES, "max_position_embeddings": BORDER, "rope_parameters": {**OFF, "rope_type": "dynamic", "factor": 3.0}},
    ),
    "llama, yarn": ("llama", {**SIZES, "rope_parameters": YARN}),
    "llama, yarn, all options": (
        "llama",
        {
            **SIZES,
            "rope_parameters": {**YARN, "beta_fast": 8, "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 0.4}
            | {"truncate": False},
        },
    ),
    "llama, proportional": (
        "llama",
        {**SIZES, "rope_parameters": {**OFF, "rope_type": "proportional", "partial_rotary_factor": 0.5}},
    ),
    "llama, llama3": ("llama", {**SIZES, "rope_parameters": {**OFF, **LLAMA3, "rope_type": "llama3"}}),
    "mistral, window": ("mistral", {**SIZES, "sliding_window": WINDOW, "head_dim": 12}),
    "mistral, no window": ("mistral", {**SIZES, "sliding_window": None}),
    "qwen2": ("qwen2", SIZES),
    "qwen2, window in the last layers": ("qwen2", {**SIZES, **SLIDE_LAST}),
    "qwen2, window by layer types": ("qwen2", {**SIZES, **SLIDE_LAST, "layer_types": SLIDING_TYPES}),
    "qwen2, yarn": ("qwen2", {**SIZES, "rope_parameters": YARN}),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 12}),
    "qwen3, biases and window": ("qwen3", {**SIZES, **SLIDE_LAST, "head_dim": 12, "attention_bias": True}),
    "gemma2": (
        "gemma2",
        {**SIZES, **GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 8.0}
        | {"tie_word_embeddings": False},
    ),
    "gemma2, no caps": (
        "gemma2",
        {**SIZES, **GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None}
        | {"attention_bias": True, "tie_word_embeddings": False},
    ),
    "gemma3_text": ("gemma3_text", {**SIZES, **GEMMA, "layer_types": SLIDING_TYPES}),
    "gemma3_text, linear": (
        "gemma3_text",
        {
            **SIZES,
            **GEMMA,
            "num_hidden_layers": 6,
            "final_logit_softcapping": 8.0,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 50000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
            },
        },
    ),
    "gemma4_text": ("gemma4_text", GEMMA4),
    "gemma4_text, no token rows": (
        "gemma4_text",
        {**GEMMA4, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "tie_word_embeddings": True}
        | {"attention_k_eq_v": True, "num_global_key_value_heads": 1, "final_logit_softcapping": 8.0},
    ),
    "gemma4_text, experts": (
        "gemma4_text",
        {**GEMMA4, "enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 20},
    ),
    "gpt2": ("gpt2", GPT2),
    "gpt2, other sizes": (
        "gpt2",
        {
            **GPT2,
            "n_inner": 40,
            "activation_function": "relu",
            "scale_attn_weights": False,
            "tie_word_embeddings": False,
        },
    ),
    "gpt_neox": ("gpt_neox", NEOX),
    "gpt_neox, one after the other": (
        "gpt_neox",
        {
            **NEOX,
            "use_parallel_residual": False,
            "attention_bias": False,
            "rope_parameters": {**OFF, "partial_rotary_factor": 0.5},
        },
    ),
    "phi3": ("phi3", {**SIZES, "original_max_position_embeddings": LIMIT}),
    "phi3, window": ("phi3", {**SIZES, "original_max_position_embeddings": LIMIT, "sliding_window": WINDOW}),
    "phi3, longrope": (
        "phi3",
        {**SIZES, **PHI3, "rope_parameters": {**LONGROPE, "partial_rotary_factor": 0.75}},
    ),
    "olmo2": ("olmo2", SIZES),
    "olmo2, biases": ("olmo2", {**SIZES, "attention_bias": True, "num_key_value_heads": 4}),
    "olmo3": (
        "olmo3",
        {
            **SIZES,
            "sliding_window": WINDOW,
            "layer_types": SLIDING_TYPES,
            "rope_parameters": {
                "full_attention": {**YARN, "rope_theta": 5e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
            },
        },
    ),
    "exaone4": ("exaone4", {**SIZES, "sliding_window": WINDOW, "sliding_window_pattern": 2}),
    "granite": (
        "granite",
        {**SIZES, "mlp_bias": True, "attention_bias": True, "embedding_multiplier": 3.0, "attention_multiplier": 0.3}
        | {"residual_multiplier": 0.7, "logits_scaling": 1.5},
    ),
    "cohere2": (
        "cohere2",
        {**SIZES, "logit_scale": 0.5, "sliding_window": WINDOW, "layer_types": SLIDING_TYPES}
        | {"tie_word_embeddings": False},
    ),
    "glm4": ("glm4", {**SIZES, "head_dim": 16}),
    "hunyuan_v1_dense": (
        "hunyuan_v1_dense",
        {
            **SIZES,
            "head_dim": 12,
            "rope_parameters": {"rope_type": "dynamic", "factor": 1.0, "alpha": 50.0, "rope_theta": 5000.0},
        },
    ),
    "ministral3": (
        "ministral3",
        {
            **SIZES,
            "head_dim": 12,
            "rope_parameters": {**YARN, "original_max_position_embeddings": 32, "llama_4_scaling_beta": 0.3},
        },
    ),
    "mixtral": ("mixtral", {**SIZES, "num_local_experts": 6, "sliding_window": WINDOW}),
    "qwen2_moe": (
        "qwen2_moe",
        {**SIZES, **SLIDE_LAST, **EXPERTS, "shared_expert_intermediate_size": 40, "decoder_sparse_step": 2}
        | {"max_window_layers": 2},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {**SIZES, **EXPERTS, "head_dim": 12, "mlp_only_layers": [1], "norm_topk_prob": True},
    ),
    "olmoe": ("olmoe", {**SIZES, **EXPERTS}),
    "gpt_oss": (
        "gpt_oss",
        {**SIZES, "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": WINDOW}
        | {"rope_parameters": {**YARN, "truncate": False}, "swiglu_limit": 0.7},
    ),
    "granitemoe": (
        "granitemoe",
        {**SIZES, "num_local_experts": 6, "residual_multiplier": 0.7, "attention_multiplier": 0.3},
    ),
    "lfm2": (
        "lfm2",
        {**SIZES, "layer_types": ["full_attention", "conv", "full_attention"], "block_multiple_of": 8},
    ),
    "lfm2_moe": (
        "lfm2_moe",
        {**SIZES, **EXPERTS, "num_hidden_layers": 4, "num_dense_layers": 1, "routed_scaling_factor": 1.5}
        | {"layer_types": ["full_attention", "conv", "full_attention", "conv"]},
    ),
    "lfm3": (
        "lfm3",
        {**SIZES, "num_hidden_layers": 4, "head_dim": 12, "conv_L_cache": 3, "sliding_window": WINDOW}
        | {"layer_types": ["sliding_attention", "conv", "full_attention", "conv"]},
    ),
    "lfm3, no sandwich norms": (
        "lfm3",
        {**SIZES, "num_hidden_layers": 3, "head_dim": 12, "conv_L_cache": 2, "use_sandwich_norm": False}
        | {"layer_types": ["full_attention", "conv", "full_attention"]},
    ),
    "qwen3_5_text": (
        "qwen3_5_text",
        {**SIZES, **DELTA, "head_dim": 16, "initializer_range": 0.15, "tie_word_embeddings": False}
        | {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    ),
    "qwen3_5_moe_text": (
        "qwen3_5_moe_text",
        {**SIZES, **DELTA, **EXPERTS, "shared_expert_intermediate_size": 40, "head_dim": 16, "initializer_range": 0.15}
        | {"layer_types": ["linear_attention", "full_attention", "linear_attention"], "tie_word_embeddings": False},
    ),
    "qwen3_next": (
        "qwen3_next",
        {**SIZES, **DELTA, **EXPERTS, "shared_expert_intermediate_size": 40, "head_dim": 16, "initializer_range": 0.12}
        | {"layer_types": ["linear_attention", "full_attention", "linear_attention"], "mlp_only_layers": [1]},
    ),
    "ministral": ("ministral", {**SIZES, "head_dim": 12, "sliding_window": WINDOW, "layer_types": SLIDING_TYPES}),
    "internlm3": ("internlm3", {**SIZES, "head_dim": 12, "attention_bias": True, "mlp_bias": True}),
    "iquestcoder": ("iquestcoder", {**SIZES, "head_dim": 12}),
    "helium": (
        "helium",
        {**SIZES, "head_dim": 8, "attention_bias": True, "mlp_bias": True, "initializer_range": 0.2},
    ),
    "vaultgemma": ("vaultgemma", {**SIZES, **GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 8.0}),
    "glm": ("glm", {**SIZES, "head_dim": 16}),
    "exaone": ("exaone", SIZES),
    "cohere": ("cohere", {**SIZES, "logit_scale": 0.5, "attention_bias": True}),
    "olmo": ("olmo", SIZES),
    "jais2": ("jais2", SIZES),
    "glm4_moe": (
        "glm4_moe",
        {**SIZES, **SIGMOID, "head_dim": 16, "use_qk_norm": True, "attention_bias": True, "first_k_dense_replace": 1},
    ),
    "dots1": ("dots1", {**SIZES, **SIGMOID, "head_dim": 12, "norm_topk_prob": True, "layer_types": SLIDING_TYPES}),
    "solar_open": ("solar_open", {**SIZES, **SIGMOID, "head_dim": 12}),
    "minimax_m2": (
        "minimax_m2",
        {**SIZES, "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 12}
        | {"rope_parameters": {**OFF, "partial_rotary_factor": 0.5}},
    ),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {**SIZES, "num_experts": 6, "moe_topk": 2, "head_dim": 12}),
    "flex_olmo": ("flex_olmo", {**SIZES, "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": True}),
    "granitemoeshared": (
        "granitemoeshared",
        {**SIZES, "num_local_experts": 6, "shared_intermediate_size": 24, "attention_multiplier": 0.3},
    ),
    "apertus": ("apertus", {**SIZES, "attention_bias": True}),
    "nanochat": ("nanochat", {**SIZES, "rope_parameters": OFF}),
    "phi": ("phi", {**SIZES, "initializer_range": 0.4}),
    "stablelm": ("stablelm", {**SIZES, "use_qkv_bias": True, "use_parallel_residual": True}),
    "stablelm, norms of heads": ("stablelm", {**SIZES, "qk_layernorm": True}),
    "smollm3": ("smollm3", {**SIZES, "no_rope_layer_interval": 2}),
    "smollm3, window": (
        "smollm3",
        {**SIZES, "no_rope_layers": [0, 1, 1], "use_sliding_window": True, "sliding_window": WINDOW, "mlp_bias": True},
    ),
}


@dataclass(frozen=True)
class Pair:
    """The same checkpoint, read by transformers and by us."""

    reference: Any
    engine: TorchEngine
    folder: Path

    def reference_logits(self, ids: Tensor) -> Tensor:
        with torch.inference_mode():
            self.reference(ids[:, :1])  # its dynamic rope remembers the longest pass until a short one
            return self.reference(ids).logits


def save(folder: Path, model_type: str, options: dict[str, Any]) -> Any:
    """Write a random model as transformers does, and a tokenizer; that model. Norms and biases are random too."""
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **json.loads(json.dumps(options)))).eval()
    with torch.no_grad():
        for weight in model.state_dict().values():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
    model.save_pretrained(folder)
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return model


def random_ids(length: int, rows: int = 2) -> Tensor:
    return torch.randint(1, tiny.VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(3))


def close(actual: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.5  # a flat model would agree with anything
    assert_close(actual, expected)


def older_gemma4(raw: dict[str, Any]) -> dict[str, Any]:
    """With the sizes of full layers' heads by names of their own."""
    full = {**raw, **raw["per_layer_config"].get(str(raw["num_hidden_layers"] - 1), {})}
    names = {"global_head_dim": "head_dim", "num_global_key_value_heads": "num_key_value_heads"}
    old = {key: value for key, value in raw.items() if key != "per_layer_config"}
    return {**old, **{key: full[name] for key, name in names.items()}}


def older(raw: dict[str, Any]) -> dict[str, Any]:
    """The same config.json as earlier versions of transformers wrote it."""
    if raw["model_type"] == "gemma4_text":
        return older_gemma4(raw)
    old = {key: value for key, value in raw.items() if key not in ("rope_parameters", "dtype")}
    old["torch_dtype"] = raw["dtype"]
    if raw["model_type"] == "lfm3":  # which has no earlier files
        return raw
    rope = dict(raw.get("rope_parameters") or {})
    if raw["model_type"] == "gemma3_text":
        local, rope = dict(rope["sliding_attention"]), dict(rope["full_attention"])
        old["rope_local_base_freq"] = local["rope_theta"]
    if raw["model_type"] == "olmo3":  # with one base for both
        rope = dict(rope["full_attention"])
    if rope:
        names = {"gpt_neox": ("rotary_emb_base", "rotary_pct")}
        theta, partial = names.get(raw["model_type"], ("rope_theta", "partial_rotary_factor"))
        old[theta] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope and rope["rope_type"] != "proportional":  # which is newer than that
            old[partial] = rope.pop("partial_rotary_factor")
        rope["type"] = rope.pop("rope_type")
        old["rope_scaling"] = None if rope == {"type": "default"} else rope
    return old

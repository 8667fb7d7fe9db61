"""What a config.json means that leaves a field out: the defaults of transformers' config classes. No torch here.

Mixtures of experts are in model/config/mixture_defaults.py. A family that is in neither names every field in its file.
"""

from __future__ import annotations

from typing import Any

Defaults = dict[str, Any]


def defaults(vocab: int, hidden: int, intermediate: int, layers: int, heads: int, positions: int) -> Defaults:
    """The sizes of a family's first model, and what nearly all families share."""
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
    }


QWEN = {
    **defaults(151936, 4096, 22016, 32, 32, 32768),
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
QWEN_VL = {
    **defaults(152064, 8192, 29568, 80, 64, 32768),
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "sliding_window": 4096,
    "max_window_layers": 80,
}
QWEN3_5 = {
    "head_dim": 256,
    "partial_rotary_factor": 0.25,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}
GEMMA = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
LFM2 = {
    "num_key_value_heads": 8,
    "norm_eps": 1e-5,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "conv_L_cache": 3,
}
GRANITE = dict.fromkeys(("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"), 1.0)
DEFAULTS: dict[str, Defaults] = {
    "llama": defaults(32000, 4096, 11008, 32, 32, 2048),
    "mistral": {
        **defaults(32000, 4096, 14336, 32, 32, 131072),
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen3_5_text": {**defaults(248320, 4096, 12288, 32, 16, 32768), **QWEN3_5, "num_key_value_heads": 4},
    "lfm2": {
        **defaults(65536, 2560, 12288, 32, 32, 128_000),
        **LFM2,
        "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0,
    },
    "lfm3": {
        **defaults(128_000, 2048, 7680, 24, 16, 128_000),
        **LFM2,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "conv_L_cache": 7,
        "sliding_window": 256,
    },
    "ministral": {**defaults(32000, 4096, 14336, 32, 32, 131072), "num_key_value_heads": 8, "sliding_window": 4096},
    "internlm3": {
        **defaults(128512, 4096, 10240, 48, 32, 32768),
        "num_key_value_heads": 2,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
    },
    "iquestcoder": {
        **defaults(76800, 5120, 27648, 80, 40, 131072),
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
    },
    "helium": {
        **defaults(48000, 2560, 7040, 24, 20, 4096),
        "num_key_value_heads": 20,
        "head_dim": 128,
        "rms_norm_eps": 1e-8,
        "rope_theta": 1e5,
    },
    "qwen2": QWEN,
    "qwen2_vl_text": QWEN_VL,
    "qwen2_5_vl_text": QWEN_VL,
    "qwen3": {**QWEN, "head_dim": 128},
    "qwen3_vl_text": {
        **QWEN,
        "head_dim": 128,
        "max_position_embeddings": 128000,
        "rope_theta": 5e5,
        "sliding_window": None,
    },
    "gemma": {
        **defaults(256000, 3072, 24576, 28, 16, 8192),
        "num_key_value_heads": 16,
        "head_dim": 256,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        **defaults(256000, 2304, 9216, 26, 8, 8192),
        **GEMMA,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "vaultgemma": {
        **defaults(256000, 2304, 9216, 26, 8, 8192),
        **GEMMA,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {
        **defaults(262208, 2304, 9216, 26, 8, 131072),
        **GEMMA,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
    },
    "gemma4_text": {
        **defaults(262144, 2304, 9216, 30, 8, 131072),
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 512,
        "vocab_size_per_layer_input": 262144,
        "hidden_size_per_layer_input": 256,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
    },
    "gpt_neox": {
        **defaults(50432, 6144, 24576, 44, 64, 2048),
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "rotary_emb_base": 1e4,
        "rotary_pct": 0.25,
    },
    "phi3": {
        **defaults(32064, 3072, 8192, 32, 32, 4096),
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "partial_rotary_factor": 1.0,
    },
    "phi": {
        **defaults(51200, 2048, 8192, 24, 32, 2048),
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.5,
    },
    "olmo": defaults(50304, 4096, 11008, 32, 32, 2048),
    "olmo3": {
        **defaults(50304, 4096, 11008, 32, 32, 2048),
        "rms_norm_eps": 1e-5,
        "rope_theta": 5e5,
        "sliding_window": 4096,
    },
    "granite": {**defaults(32000, 4096, 11008, 32, 32, 2048), **GRANITE},
    "cohere": {
        **defaults(256000, 8192, 22528, 40, 64, 8192),
        "layer_norm_eps": 1e-5,
        "rope_theta": 5e5,
        "logit_scale": 0.0625,
        "tie_word_embeddings": True,
    },
    "cohere2": {
        **defaults(256000, 8192, 22528, 40, 64, 8192),
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    },
    "glm": {
        **defaults(151552, 4096, 13696, 40, 32, 131072),
        "num_key_value_heads": 2,
        "head_dim": 128,
        "rms_norm_eps": 1.5625e-7,
        "partial_rotary_factor": 0.5,
        "attention_bias": True,
    },
    "glm4": {
        **defaults(151552, 4096, 13696, 40, 32, 131072),
        "num_key_value_heads": 2,
        "head_dim": 128,
        "rms_norm_eps": 1.5625e-7,
        "partial_rotary_factor": 0.5,
        "attention_bias": True,
    },
    "exaone": {
        **defaults(102400, 4096, 14336, 32, 32, 4096),
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5e5,
    },
    "exaone4": {
        **defaults(102400, 4096, 16384, 32, 32, 2048),
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
    },
    "hunyuan_v1_dense": {**defaults(290943, 4096, 11008, 32, 32, 2048), "rms_norm_eps": 1e-5},
    "ernie4_5": {
        **defaults(103424, 1024, 3072, 18, 16, 131072),
        "num_key_value_heads": 2,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5e5,
        "tie_word_embeddings": True,
    },
    "ministral3": {
        **defaults(131072, 4096, 14336, 34, 32, 262144),
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
    },
    "seed_oss": {
        **defaults(155136, 4096, 27648, 64, 80, 524288),
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_bias": True,
    },
    "apertus": {
        **defaults(131072, 4096, 14336, 32, 32, 65536),
        "hidden_act": "xielu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 1.2e7,
    },
    "arcee": {**defaults(32000, 2560, 18432, 32, 32, 4096), "hidden_act": "relu2", "rms_norm_eps": 1e-5},
    "nanochat": {
        **defaults(50304, 768, 8192, 12, 6, 2048),
        "hidden_act": "relu2",
        "final_logit_softcapping": 15.0,
    },
    "starcoder2": {
        **defaults(49152, 3072, 12288, 30, 24, 4096),
        "num_key_value_heads": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    "jais2": {
        **defaults(150272, 3328, 26624, 32, 26, 8192),
        "hidden_act": "relu2",
        "layer_norm_eps": 1e-5,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "stablelm": {
        **defaults(50304, 2560, 6912, 32, 32, 4096),
        "num_key_value_heads": 32,
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.25,
    },
    "olmo2": {**defaults(50304, 4096, 11008, 32, 32, 2048), "rms_norm_eps": 1e-5},
    "smollm3": {
        **defaults(128256, 2048, 11008, 36, 16, 32768),
        "num_key_value_heads": 4,
        "rope_theta": 2e6,
        "tie_word_embeddings": True,
    },
}

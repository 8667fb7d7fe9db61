"""What a config.json of a mixture of experts means that leaves a field out: as in model/config/family_defaults.py."""

from __future__ import annotations

from tokenglass.model.config.family_defaults import GRANITE, LFM2, QWEN3_5, Defaults, defaults

MIXTURE_DEFAULTS: dict[str, Defaults] = {
    "mixtral": {
        **defaults(32000, 4096, 14336, 32, 32, 131072),
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_experts": 8,
        "num_experts_per_tok": 2,
    },
    "qwen2_moe": {
        **defaults(151936, 2048, 5632, 24, 16, 32768),
        "sliding_window": 4096,
        "max_window_layers": 28,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
    },
    "qwen3_moe": {
        **defaults(151936, 2048, 6144, 24, 32, 32768),
        "num_key_value_heads": 4,
        "sliding_window": 4096,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    },
    "qwen3_5_moe_text": {
        **defaults(248320, 2048, 512, 40, 16, 32768),
        **QWEN3_5,
        "num_key_value_heads": 2,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    },
    "qwen3_next": {
        **defaults(151936, 2048, 5632, 48, 16, 32768),
        **QWEN3_5,
        "num_key_value_heads": 2,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    },
    "lfm2_moe": {
        **defaults(65536, 2048, 7168, 32, 32, 128_000),
        **LFM2,
        "num_dense_layers": 2,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1792,
        "routed_scaling_factor": 1.0,
    },
    "olmoe": {
        **defaults(50304, 2048, 2048, 16, 16, 4096),
        "rms_norm_eps": 1e-5,
        "num_experts": 64,
        "num_experts_per_tok": 8,
    },
    "granitemoe": {
        **defaults(32000, 4096, 11008, 32, 32, 2048),
        **GRANITE,
        "num_experts": 8,
        "num_experts_per_tok": 2,
    },
    "gpt_oss": {
        **defaults(201088, 2880, 2880, 36, 64, 131072),
        "num_key_value_heads": 8,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 150000.0,
        "sliding_window": 128,
        "attention_bias": True,
        "num_experts": 128,
        "num_experts_per_tok": 4,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
    },
}

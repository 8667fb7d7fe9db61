"""Small configs of models that see or hear, around every kind of text model."""

from __future__ import annotations

from typing import Any

import tiny
from families import CASES as FAMILIES
from families import SIZES

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_VISION = {
    "depth": 1,
    "hidden_size": 16,
    "embed_dim": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": 32,
    "fullatt_block_indexes": [0],
    "deepstack_visual_indexes": [0],
    "num_position_embeddings": 16,
}
ROPE = {"rope_type": "default", "rope_theta": 5000.0}
MROPE = {"rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]}}
SIGLIP, CLIP = ({**VISION, "model_type": f"{name}_vision_model"} for name in ("siglip", "clip"))
SAM = {**VISION, "output_channels": 8, "mlp_dim": 24, "window_size": 2, "global_attn_indexes": [0]}
AUDIO = {
    **dict.fromkeys(("hidden_size", "d_model", "hidden_dim"), 16),
    **dict.fromkeys(("encoder_layers", "num_hidden_layers", "num_layers"), 1),
    **dict.fromkeys(("encoder_attention_heads", "num_attention_heads", "num_key_value_heads", "num_heads"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "intermediate_size"), 24),
    **dict.fromkeys(("num_mel_bins", "input_dim", "output_dim", "dim_head"), 8),
    "max_source_positions": 20,
}


def of_each(names: tuple[str, ...], config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same config for each of these."""
    return dict.fromkeys(names, config)


CASES: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": {
            **SIZES,
            "model_type": "gemma3_text",
            "head_dim": 8,
            "sliding_window": 16,
            "query_pre_attn_scalar": 8,
        },
        "vision_config": SIGLIP,
        "mm_tokens_per_image": 4,
    },
    "gemma4": {
        "text_config": {
            **SIZES,
            "model_type": "gemma4_text",
            "head_dim": 8,
            "global_head_dim": 16,
            "sliding_window": 16,
            "num_kv_shared_layers": 1,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": tiny.VOCAB_SIZE,
        },
        "vision_config": {**VISION, "num_key_value_heads": 2, "head_dim": 8},
        "audio_config": None,
    },
    "mistral3": {
        "text_config": {**SIZES, "model_type": "mistral", "head_dim": 8},
        "vision_config": {**VISION, "model_type": "pixtral"},
        "tie_word_embeddings": False,
    },
    "llava": {"text_config": {**SIZES, "model_type": "llama"}, "vision_config": CLIP},
    "llava_next": {"text_config": {**SIZES, "model_type": "mistral", "head_dim": 8}, "vision_config": CLIP},
    "llava_onevision": {"text_config": {**SIZES, "model_type": "qwen2"}, "vision_config": SIGLIP},
    "idefics3": {"text_config": {**SIZES, "model_type": "llama"}, "vision_config": VISION},
    "smolvlm": {"text_config": {**SIZES, "model_type": "llama"}, "vision_config": VISION},
    "internvl": {
        "text_config": {**SIZES, "model_type": "qwen2"},
        "vision_config": {**VISION, "image_size": [28, 28], "patch_size": [14, 14]},
    },
    "qwen2_vl": {"text_config": {**SIZES, **MROPE}, "vision_config": {**QWEN_VISION, "hidden_size": 32}},
    "qwen2_5_vl": {"text_config": {**SIZES, **MROPE}, "vision_config": QWEN_VISION},
    "qwen3_vl": {
        "text_config": {
            **SIZES,
            "head_dim": 8,
            "rope_parameters": {**ROPE, "mrope_section": [2, 1, 1], "mrope_interleaved": True},
        },
        "vision_config": QWEN_VISION,
    },
    "lfm2_vl": {
        "text_config": {
            **SIZES,
            "model_type": "lfm2",
            "layer_types": ["conv", "full_attention", "conv"],
            "block_auto_adjust_ff_dim": False,
        },
        "vision_config": {**VISION, "model_type": "siglip2_vision_model", "num_patches": 4},
    },
    "lfm3_vl": {
        "text_config": {
            **SIZES,
            "model_type": "lfm3",
            "head_dim": 8,
            "conv_L_cache": 3,
            "layer_types": ["conv", "full_attention", "conv"],
        },
        "vision_config": {**VISION, "num_key_value_heads": 2, "head_dim": 8, "out_hidden_size": 32},
    },
    **of_each(
        ("minicpmv4_6", "minicpmv4_7", "minicpm_ocr"),
        {
            "text_config": {**FAMILIES["qwen3_5_text"][1], "model_type": "qwen3_5_text", "initializer_range": 0.12},
            "vision_config": VISION,
        },
    ),
    **of_each(
        ("aya_vision", "cohere2_vision"),
        {"text_config": {**SIZES, "model_type": "cohere2", "logit_scale": 0.5}, "vision_config": SIGLIP},
    ),
    "exaone4_5": {
        "text_config": {**SIZES, "model_type": "exaone4", "sliding_window": 16, "sliding_window_pattern": 2},
        "vision_config": {**QWEN_VISION, "num_key_value_heads": 2},
    },
    "idefics2": {
        "text_config": {**SIZES, "model_type": "mistral", "head_dim": 8},
        "vision_config": VISION,
        "perceiver_config": {
            "hidden_size": 32,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 8,
            "num_key_value_heads": 1,
        },
    },
    "janus": {
        "text_config": {**SIZES, "model_type": "llama"},
        "vision_config": {**VISION, "num_image_tokens": 4, "projection_dim": 32, "mlp_ratio": 2},
        "vq_config": {
            "embed_dim": 8,
            "num_embeddings": 16,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "latent_channels": 8,
            "projection_dim": 32,
            "image_token_embed_dim": 32,
            "num_patches": 4,
        },
    },
    "deepseek_vl": {"text_config": {**SIZES, "model_type": "llama"}, "vision_config": SIGLIP},
    "deepseek_vl_hybrid": {
        "text_config": {**SIZES, "model_type": "llama"},
        "vision_config": SIGLIP,
        "high_res_vision_config": {**SAM, "model_type": "sam_vision_model", "image_size": 56},
    },
    **of_each(
        ("llava_next_video", "video_llava", "vipllava"),
        {"text_config": {**SIZES, "model_type": "llama"}, "vision_config": CLIP},
    ),
    "video_llama_3": {"text_config": {**SIZES, "model_type": "qwen2"}, "vision_config": VISION},
    "ovis2": {
        "text_config": {**SIZES, "model_type": "qwen2"},
        "vision_config": {**VISION, "vocab_size": 32, "hidden_stride": 2},
        "hidden_size": 32,
        "vocab_size": tiny.VOCAB_SIZE,
    },
    "got_ocr2": {"text_config": {**SIZES, "model_type": "qwen2"}, "vision_config": SAM},
    "lighton_ocr": {
        "text_config": {**SIZES, "model_type": "qwen3", "head_dim": 8},
        "vision_config": {**VISION, "model_type": "pixtral"},
    },
    **of_each(
        ("qwen2_audio", "audioflamingo3"), {"text_config": {**SIZES, "model_type": "qwen2"}, "audio_config": AUDIO}
    ),
    "vibevoice_asr": {"text_config": {**SIZES, "model_type": "qwen2"}},
    **of_each(
        ("qwen3_asr", "moss_transcribe_diarize"),
        {"text_config": {**SIZES, "model_type": "qwen3", "head_dim": 8}, "audio_config": AUDIO},
    ),
    **of_each(("voxtral", "glmasr"), {"text_config": {**SIZES, "model_type": "llama"}, "audio_config": AUDIO}),
    **of_each(
        ("granite_speech", "granite_speech_plus"),
        {
            "text_config": {**SIZES, "model_type": "granite", "attention_multiplier": 0.3},
            "encoder_config": {**AUDIO, "context_size": 4, "max_pos_emb": 4, "conv_kernel_size": 3},
            "projector_config": {**VISION, "model_type": "blip_2_qformer", "encoder_hidden_size": 16},
            "has_lora_adapter": False,
        },
    ),
}

"""What GGUF metadata says in config.json's words, of architectures in which only some layers have attention.

Each reader takes the architecture's own keys and the common config, as those of gguf_readers.py do.
"""

from __future__ import annotations

from tokenglass.model.config.fields import Fields
from tokenglass.model.importers.gguf_readers import Config, experts, partial, without

SIGMOID = 2  # as llama.cpp numbers what makes probabilities of a router's logits


def read_lfm2(f: Fields, config: Config) -> Config:
    """The feed-forward's size is that of the matrices."""
    return {**with_convolutions(f, config), "block_auto_adjust_ff_dim": False}


def read_lfm2_moe(f: Fields, config: Config) -> Config:
    """The probabilities of the chosen experts are scaled to add up to 1 and to no other sum, as llama.cpp does."""
    if f.integer("expert_gating_func") != SIGMOID:
        raise f.wrong("expert_gating_func", f"{SIGMOID}, a sigmoid")
    return {
        **with_convolutions(f, config),
        **experts(f, "num_experts"),
        "moe_intermediate_size": f.integer("expert_feed_forward_length"),
        "num_dense_layers": f.integer("leading_dense_block_count", 0),
        "use_expert_bias": True,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
    }


def with_convolutions(f: Fields, config: Config) -> Config:
    """Layers without heads have a short convolution."""
    none = f.get("layers_without_attention") or (False,) * config["num_hidden_layers"]
    return {
        **without(config, "attention_bias", "mlp_bias", "hidden_act", "rms_norm_eps"),
        "norm_eps": config["rms_norm_eps"],
        "conv_L_cache": f.integer("shortconv.l_cache"),
        "layer_types": ["conv" if without_attention else "full_attention" for without_attention in none],
    }


def read_qwen3_5(f: Fields, config: Config) -> Config:
    """Sections of the rotation are for what is seen; in a text all of them turn alike."""
    f.get("rope.dimension_sections")
    heads, size = f.integer("ssm.time_step_rank"), f.integer("ssm.inner_size")
    if heads < 1 or size % heads:
        raise f.wrong("ssm.inner_size", f"a multiple of {heads} value heads")
    return {
        **partial(without(config, "mlp_bias"), "partial_rotary_factor"),
        "linear_num_key_heads": f.integer("ssm.group_count"),
        "linear_num_value_heads": heads,
        "linear_key_head_dim": f.integer("ssm.state_size"),
        "linear_value_head_dim": size // heads,
        "linear_conv_kernel_dim": f.integer("ssm.conv_kernel"),
        **attention_layers(f),
    }


def read_qwen3_5_moe(f: Fields, config: Config) -> Config:
    return {
        **without(read_qwen3_5(f, config), "intermediate_size"),
        **experts(f, "num_experts"),
        "moe_intermediate_size": f.integer("expert_feed_forward_length"),
        "shared_expert_intermediate_size": f.integer("expert_shared_feed_forward_length"),
    }


def read_qwen3_next(f: Fields, config: Config) -> Config:
    """All layers have experts, and the probabilities of those chosen are scaled to add up to 1, as llama.cpp does."""
    return {**read_qwen3_5_moe(f, config), "norm_topk_prob": True}


def attention_layers(f: Fields) -> Config:
    """Which layers have attention: every fourth, or as the file says."""
    recurrent = f.get("attention.recurrent_layers")
    interval = f.integer("full_attention_interval", 4)
    if not isinstance(recurrent, tuple):
        return {"full_attention_interval": interval}
    return {"layer_types": ["linear_attention" if each else "full_attention" for each in recurrent]}

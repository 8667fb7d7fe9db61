"""What GGUF metadata says in config.json's words, of mixtures whose shared experts have no gate or whose router has
sigmoids.

Each reader takes the architecture's own keys and the common config, as those of gguf_readers.py do.
"""

from __future__ import annotations

from tokenglass.model.config.fields import Fields
from tokenglass.model.importers.gguf_mixers import SIGMOID
from tokenglass.model.importers.gguf_readers import Config, experts, partial, without


def read_hunyuan_moe(f: Fields, config: Config) -> Config:
    """All experts are as wide as the shared one."""
    size = config["intermediate_size"]
    for key in ("expert_feed_forward_length", "expert_shared_feed_forward_length"):
        if f.integer(key, size) != size:
            raise f.wrong(key, f"{size}, as feed_forward_length is")
    count = {"num_experts": f.integer("expert_count"), "moe_topk": f.integer("expert_used_count")}
    return {**without(config, "mlp_bias"), **count}


def read_minimax_m2(f: Fields, config: Config) -> Config:
    check_sigmoid(f)
    size = f.integer("expert_feed_forward_length", config["intermediate_size"])
    kept = partial(without(config, "attention_bias", "mlp_bias"), "partial_rotary_factor")
    return {**kept, **experts(f), "intermediate_size": size}


def read_glm4_moe(f: Fields, config: Config) -> Config:
    kept = partial(without(config, "mlp_bias"), "partial_rotary_factor")
    return {**kept, **sigmoid_experts(f), "use_qk_norm": config["query_norm"]}


def read_dots1(f: Fields, config: Config) -> Config:
    return {**without(config, "mlp_bias"), **sigmoid_experts(f), "sliding_window": None}


def sigmoid_experts(f: Fields) -> Config:
    check_sigmoid(f)
    return {
        **experts(f, "n_routed_experts"),
        "moe_intermediate_size": f.integer("expert_feed_forward_length"),
        "n_shared_experts": f.integer("expert_shared_count", 0),
        "n_group": f.integer("expert_group_count", 1),
        "topk_group": f.integer("expert_group_used_count", 1),
        "first_k_dense_replace": f.integer("leading_dense_block_count", 0),
        "norm_topk_prob": f.boolean("expert_weights_norm"),
        "routed_scaling_factor": f.number("expert_weights_scale", 1.0),
    }


def check_sigmoid(f: Fields) -> None:
    """Raises ConfigError where the file names another function. Earlier files name none."""
    if f.integer("expert_gating_func", SIGMOID) != SIGMOID:
        raise f.wrong("expert_gating_func", f"{SIGMOID}, a sigmoid")

"""What each architecture's GGUF metadata says in config.json's words, beside what all have in common.

Each reader takes the architecture's own keys and that common config. Keys as llama.cpp's loader reads them
(github.com/ggml-org/llama.cpp/blob/master/src/models).
"""

from __future__ import annotations

from typing import Any

from tokenglass.model.config.fields import Fields

Config = dict[str, Any]
KEY_VALUE_HEADS = "attention.head_count_kv"  # 0 in a layer without attention


def read_llama(f: Fields, config: Config) -> Config:
    """Mistral's files name this architecture too; theirs may have a window, and Mixtral's have experts."""
    window = f.get("attention.sliding_window")
    if f.integer("expert_count", 0):
        named = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}
        return {**without(config, "attention_bias", "mlp_bias"), **named, **experts(f), "sliding_window": window}
    if not window:
        return config
    return {**config, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}


def read_qwen2(f: Fields, config: Config) -> Config:  # noqa: ARG001  (all readers take both)
    return without(config, "attention_bias")  # which it always has


def experts(f: Fields, count: str = "num_local_experts") -> Config:
    """How many experts there are, and how many of them a token takes."""
    return {count: f.integer("expert_count"), "num_experts_per_tok": f.integer("expert_used_count")}


def read_qwen2_moe(f: Fields, config: Config) -> Config:
    """The probabilities of the chosen experts are not scaled to add up to 1; files do not say so, llama.cpp does."""
    return {
        **without(config, "mlp_bias", "attention_bias"),
        **experts(f, "num_experts"),
        "qkv_bias": config["attention_bias"],
        "moe_intermediate_size": f.integer("expert_feed_forward_length"),
        "shared_expert_intermediate_size": f.integer("expert_shared_feed_forward_length"),
        "norm_topk_prob": False,
    }


def read_qwen3_moe(f: Fields, config: Config) -> Config:
    """The probabilities of the chosen experts are scaled to add up to 1, likewise."""
    size = f.integer("expert_feed_forward_length")
    return {**config, **experts(f, "num_experts"), "moe_intermediate_size": size, "norm_topk_prob": True}


def read_olmoe(f: Fields, config: Config) -> Config:
    size = f.integer("expert_feed_forward_length", config["intermediate_size"])
    return {**config, **experts(f, "num_experts"), "intermediate_size": size, "norm_topk_prob": False}


def read_granitemoe(f: Fields, config: Config) -> Config:
    """With a shared expert it is granitemoeshared."""
    own = {**without(read_granite(f, config), "mlp_bias"), **experts(f)}
    size = f.integer("expert_shared_feed_forward_length", 0)
    if not size:
        return own
    names = {"model_type": "granitemoeshared", "architectures": ["GraniteMoeSharedForCausalLM"]}
    return {**own, **names, "shared_intermediate_size": size}


def read_gpt_oss(f: Fields, config: Config) -> Config:
    """Where its scaling begins and ends is not rounded to whole pairs, as llama.cpp does."""
    scaling = config["rope_scaling"]
    return {
        **without(config, "mlp_bias", "rope_scaling"),
        **experts(f),
        "intermediate_size": f.integer("expert_feed_forward_length", config["intermediate_size"]),
        "sliding_window": f.integer("attention.sliding_window"),
        "layer_types": layer_types(f, config["num_hidden_layers"], 2),
        "rope_scaling": {"rope_type": "default"} if scaling is None else {**scaling, "truncate": False},
    }


def read_exaone4(f: Fields, config: Config) -> Config:
    """Without a window all layers are alike; with one, each fourth sees everything and does not rotate."""
    window, count = f.get("attention.sliding_window") or None, config["num_hidden_layers"]
    types = layer_types(f, count, 4) if window else ["full_attention"] * count
    return {**without(config, "attention_bias", "mlp_bias"), "sliding_window": window, "layer_types": types}


def read_ministral3(f: Fields, config: Config) -> Config:
    """Queries grow with the position behind the trained ones; YaRN's own sharpening is divided by another."""
    sharper = f.number("rope.scaling.yarn_log_multiplier", 0.0)
    rope = {
        "rope_type": "default",
        **(config["rope_scaling"] or {}),
        "rope_theta": config["rope_theta"],
        **({"mscale": 1.0, "mscale_all_dim": sharper} if sharper else {}),
        "llama_4_scaling_beta": f.number("attention.temperature_scale", 0.0),
    }
    kept = without(config, "attention_bias", "mlp_bias", "rope_scaling", "rope_theta")
    return {**kept, "rope_parameters": rope, "sliding_window": None}


def read_apertus(f: Fields, config: Config) -> Config:
    """Two numbers of its activation are weights, which weights_of reads; the others are the same in all models."""
    for key in ("xielu.alpha_p", "xielu.alpha_n"):
        f.get(key)
    for key, usual in (("xielu.beta", 0.5), ("xielu.eps", -1e-6)):
        values = f.get(key)
        for value in values if isinstance(values, tuple) else (values,):
            if not isinstance(value, float) or abs(value - usual) > abs(usual) / 1000:
                raise f.wrong(key, f"{usual} in every layer")
    rope = {"rope_type": "default", **(config["rope_scaling"] or {}), "rope_theta": config["rope_theta"]}
    kept = without(config, "mlp_bias", "rope_scaling", "rope_theta")
    return {**kept, "hidden_act": "xielu", "rope_parameters": rope}


def read_smollm3(f: Fields, config: Config) -> Config:
    return {**read_llama(f, config), "no_rope_layer_interval": 4}


def read_granite(f: Fields, config: Config) -> Config:
    return {
        **config,
        "embedding_multiplier": f.number("embedding_scale", 1.0),
        "residual_multiplier": f.number("residual_scale", 1.0),
        "attention_multiplier": f.number("attention.scale", 1 / config["head_dim"] ** 0.5),
        "logits_scaling": f.number("logit_scale", 1.0),
    }


def read_arcee(f: Fields, config: Config) -> Config:  # noqa: ARG001  (all readers take both)
    return {**config, "hidden_act": "relu2"}


def read_seed_oss(f: Fields, config: Config) -> Config:  # noqa: ARG001
    return {**config, "attention_out_bias": False}


def read_olmo2(f: Fields, config: Config) -> Config:
    """With a window it is Olmo 3, which scales the rope of the other layers alone."""
    window = f.get("attention.sliding_window")
    if not window:
        return config
    plain = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    return {
        **without(config, "rope_scaling"),
        "model_type": "olmo3",
        "architectures": ["Olmo3ForCausalLM"],
        "sliding_window": window,
        "layer_types": layer_types(f, config["num_hidden_layers"], 4),
        "rope_parameters": {
            "full_attention": {**plain, **(config["rope_scaling"] or {})},
            "sliding_attention": {**plain, "rope_theta": f.number("rope.freq_base_swa", config["rope_theta"])},
        },
    }


def read_olmo(f: Fields, config: Config) -> Config:
    """Its norms have one eps, which config.json does not name."""
    if f.number("attention.layer_norm_epsilon") != 1e-5:
        raise f.wrong("attention.layer_norm_epsilon", "1e-5")
    return without(config, "mlp_bias")


def read_jais2(f: Fields, config: Config) -> Config:
    return {**config, "hidden_act": "relu2", "layer_norm_eps": f.number("attention.layer_norm_epsilon")}


def read_cohere(f: Fields, config: Config) -> Config:
    return {
        **without(config, "mlp_bias"),
        "layer_norm_eps": f.number("attention.layer_norm_epsilon"),
        "logit_scale": f.number("logit_scale", 1.0),
        "use_qk_norm": config["query_norm"],
    }


def read_cohere2(f: Fields, config: Config) -> Config:
    return {
        **config,
        "layer_norm_eps": f.number("attention.layer_norm_epsilon"),
        "logit_scale": f.number("logit_scale", 1.0),
        "sliding_window": f.integer("attention.sliding_window"),
        "layer_types": layer_types(f, config["num_hidden_layers"], 4),
    }


def read_ernie4_5(f: Fields, config: Config) -> Config:  # noqa: ARG001
    return {**without(config, "attention_bias", "mlp_bias"), "use_bias": config["attention_bias"]}


def read_glm4(f: Fields, config: Config) -> Config:  # noqa: ARG001
    return partial(config, "partial_rotary_factor")


def read_starcoder2(f: Fields, config: Config) -> Config:
    own = {"hidden_act": "gelu_pytorch_tanh", "norm_epsilon": f.number("attention.layer_norm_epsilon")}
    kept = without(config, "attention_bias", "mlp_bias")
    return {**kept, **own, "use_bias": config["attention_bias"], "sliding_window": f.get("attention.sliding_window")}


def read_stablelm(f: Fields, config: Config) -> Config:
    return {
        **partial(without(config, "attention_bias"), "partial_rotary_factor"),
        "layer_norm_eps": f.number("attention.layer_norm_epsilon"),
        "use_qkv_bias": config["attention_bias"],
        "qk_layernorm": config["query_norm"],
        "use_parallel_residual": f.boolean("use_parallel_residual", True),
    }


def read_phi(f: Fields, config: Config) -> Config:
    own = {"hidden_act": "gelu_new", "layer_norm_eps": f.number("attention.layer_norm_epsilon")}
    return {**partial(without(config, "attention_bias", "mlp_bias"), "partial_rotary_factor"), **own}


def read_phi3(f: Fields, config: Config) -> Config:
    """The window counts where the file has one, though llama.cpp does not look at it."""
    trained = f.integer("rope.scaling.original_context_length", config["max_position_embeddings"])
    return {
        **partial(config, "partial_rotary_factor"),
        "original_max_position_embeddings": trained,
        "sliding_window": f.get("attention.sliding_window") or None,
    }


GPT2_LACKS = (
    *("rope_theta", "rope_scaling", "rope_dimensions", "num_key_value_heads", "head_dim"),
    *("hidden_act", "attention_bias", "mlp_bias"),
)


def read_gpt2(f: Fields, config: Config) -> Config:
    names = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "max_position_embeddings": "n_positions",
    }
    kept = {names.get(key, key): value for key, value in without(config, *GPT2_LACKS).items()}
    eps = f.number("attention.layer_norm_epsilon")
    return {**kept, "activation_function": "gelu_new", "layer_norm_epsilon": eps}


def read_gpt_neox(f: Fields, config: Config) -> Config:
    return {
        **partial(without(config, "mlp_bias"), "rotary_pct"),
        "rotary_emb_base": config["rope_theta"],
        "hidden_act": "gelu",
        "layer_norm_eps": f.number("attention.layer_norm_epsilon"),
        "use_parallel_residual": f.boolean("use_parallel_residual", True),
    }


def of_layers(key: str) -> str:
    """What own_values calls the numbers of all layers, where they differ."""
    return f"{key}_of_layers"


def without(config: Config, *keys: str) -> Config:
    return {key: value for key, value in config.items() if key not in keys}


def partial(config: Config, key: str) -> Config:
    """The share of a head that rotates, under the name that the family has for it."""
    return {**config, key: config["rope_dimensions"] / config["head_dim"], "rope_dimensions": config["head_dim"]}


def layer_types(f: Fields, count: int, period: int) -> list[str]:
    """Which layers have the window: the file's own list or period, or else all but every `period`-th."""
    pattern = f.get("attention.sliding_window_pattern")
    if not isinstance(pattern, tuple):
        every = f.integer("attention.sliding_window_pattern", period)
        pattern = [(layer + 1) % every != 0 for layer in range(count)] if every > 0 else []
    if len(pattern) != count:
        raise f.wrong("attention.sliding_window_pattern", f"a period or a list of {count}")
    return ["sliding_attention" if slides else "full_attention" for slides in pattern]

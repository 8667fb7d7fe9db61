"""The architectures that GGUF files name: what their tensors hold, and what their metadata says in config.json's words.

Names and keys: github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py, as its loader reads them
(src/models/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.errors import GGUFError

BLOCK = re.compile(r"blk\.(\d{1,4})\.(\w+)\.(weight|bias)")
OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "position_embd": "model.embed_positions",
    "output_norm": "model.norm",
    "output": "lm_head",
}
ROPE_DIVISORS = "rope_freqs.weight"  # tables of divisors for the rotary frequencies, not weights
LONG_DIVISORS, SHORT_DIVISORS = "rope_factors_long.weight", "rope_factors_short.weight"
TABLES = frozenset({ROPE_DIVISORS, LONG_DIVISORS, SHORT_DIVISORS})
PARTS: Mapping[str, tuple[str, ...]] = {
    "attn_norm": ("input_layernorm",),
    "attn_q": ("self_attn.q_proj",),
    "attn_k": ("self_attn.k_proj",),
    "attn_v": ("self_attn.v_proj",),
    "attn_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn_q_norm": ("self_attn.q_norm",),
    "attn_k_norm": ("self_attn.k_norm",),
    "attn_output": ("self_attn.o_proj",),
    "post_attention_norm": ("post_attention_layernorm",),
    "ffn_norm": ("post_attention_layernorm",),
    "ffn_gate": ("mlp.gate_proj",),
    "ffn_up": ("mlp.up_proj",),
    "ffn_down": ("mlp.down_proj",),
    "post_ffw_norm": ("post_feedforward_layernorm",),
}
FUSED_UP = {"ffn_up": ("mlp.gate_proj", "mlp.up_proj")}
GEMMA_PARTS = {"ffn_norm": ("pre_feedforward_layernorm",)}

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture: its names in config.json, and how its tensors differ from the blueprint's weights."""

    model_type: str
    model_class: str  # transformers' own
    read: Callable[[Fields, Config], Config] = lambda _, config: config
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # where they differ from PARTS
    interleaved: frozenset[str] = frozenset()  # rotary pairs of these parts lie side by side, not in halves
    norm_offset: float = 0.0  # that the converter added to the weights of norms

    def weights(self, stored: str) -> tuple[str, ...] | None:
        """The blueprint's weights in a tensor, one below the other; None where no architecture has it."""
        stem, _, kind = stored.rpartition(".")
        if stem in OUTSIDE and kind in ("weight", "bias"):
            return (f"{OUTSIDE[stem]}.{kind}",)
        match = BLOCK.fullmatch(stored)
        parts = {**PARTS, **self.parts}.get(match[2]) if match else None
        if match is None or parts is None:
            return None
        return tuple(f"model.layers.{int(match[1])}.{part}.{match[3]}" for part in parts)

    def pairs(self, stored: str, config: ModelConfig) -> int:
        """The number of heads whose rotary pairs lie side by side in a tensor; 0: they lie in halves."""
        match = BLOCK.fullmatch(stored)
        if match is None or match[2] not in self.interleaved:
            return 0
        return config.num_heads if match[2] == "attn_q" else config.num_kv_heads


def read_llama(f: Fields, config: Config) -> Config:
    """Mistral's files name this architecture too; theirs may have a window."""
    window = f.get("attention.sliding_window")
    if not window:
        return config
    return {**config, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}


def read_qwen2(f: Fields, config: Config) -> Config:  # noqa: ARG001  (all readers take both)
    return without(config, "attention_bias")  # which it always has


def read_smollm3(f: Fields, config: Config) -> Config:
    return {**read_llama(f, config), "no_rope_layer_interval": 4}


def read_gemma2(f: Fields, config: Config) -> Config:
    return {
        **gemma(config, largest=46),
        "sliding_window": f.integer("attention.sliding_window", 4096),
        "layer_types": layer_types(f, config["num_hidden_layers"], 2),
        "attn_logit_softcapping": f.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": f.number("final_logit_softcapping", 30.0),
    }


def read_gemma3(f: Fields, config: Config) -> Config:
    count, window = config["num_hidden_layers"], f.get("attention.sliding_window")
    return {
        **gemma(config, largest=62),
        "sliding_window": window or 4096,
        "layer_types": layer_types(f, count, 6) if window else ["full_attention"] * count,
        "rope_local_base_freq": f.number("rope.freq_base_swa", 1e4),
        "final_logit_softcapping": f.number_or_none("final_logit_softcapping"),
    }


def gemma(config: Config, *, largest: int) -> Config:
    """What the Gemma generations share. The largest models, known by their layers, scale by hidden size and heads."""
    scalar = config["head_dim"]
    if config["num_hidden_layers"] == largest:
        scalar = config["hidden_size"] // config["num_attention_heads"]
    own = {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": scalar}
    return {**without(config, "hidden_act"), **own}


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


Q_AND_K = frozenset({"attn_q", "attn_k"})
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", "LlamaForCausalLM", read_llama, interleaved=Q_AND_K),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", read_qwen2),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM"),
    "gemma2": Architecture("gemma2", "Gemma2ForCausalLM", read_gemma2, GEMMA_PARTS, norm_offset=1.0),
    "gemma3": Architecture("gemma3_text", "Gemma3ForCausalLM", read_gemma3, GEMMA_PARTS, norm_offset=1.0),
    "phi3": Architecture("phi3", "Phi3ForCausalLM", read_phi3, FUSED_UP),
    "olmo2": Architecture("olmo2", "Olmo2ForCausalLM"),
    "smollm3": Architecture("smollm3", "SmolLM3ForCausalLM", read_smollm3, interleaved=Q_AND_K),
    "gpt2": Architecture("gpt2", "GPT2LMHeadModel", read_gpt2),
    "gptneox": Architecture("gpt_neox", "GPTNeoXForCausalLM", read_gpt_neox),
}


def architecture(name: object) -> Architecture:
    """The architecture of that name. Raises GGUFError."""
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise GGUFError(f"architecture {quote(name)} is not supported (supported: {', '.join(ARCHITECTURES)})")
    return ARCHITECTURES[name]

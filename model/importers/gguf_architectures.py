"""The architectures that GGUF files name, and what their tensors hold.

Names and keys: github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py, as its loader reads them
(src/models/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.fields import Fields, nearest_first, quote
from tokenglass.model.errors import GGUFError
from tokenglass.model.importers.gguf_gemma import read_gemma, read_gemma2, read_gemma3, read_gemma4
from tokenglass.model.importers.gguf_mixers import (
    read_lfm2,
    read_lfm2_moe,
    read_qwen3_5,
    read_qwen3_5_moe,
    read_qwen3_next,
)
from tokenglass.model.importers.gguf_mixtures import read_dots1, read_glm4_moe, read_hunyuan_moe, read_minimax_m2
from tokenglass.model.importers.gguf_orders import (
    Order,
    fused_rotary_pairs,
    logarithms,
    queries_beside_gates,
    queries_to_gates,
    rotary_pairs,
    same,
    strengths_beside_decays,
    value_heads,
    values_behind_keys,
    without_one,
)
from tokenglass.model.importers.gguf_readers import (
    Config,
    read_apertus,
    read_arcee,
    read_cohere,
    read_cohere2,
    read_ernie4_5,
    read_exaone4,
    read_glm4,
    read_gpt2,
    read_gpt_neox,
    read_gpt_oss,
    read_granite,
    read_granitemoe,
    read_jais2,
    read_llama,
    read_ministral3,
    read_olmo,
    read_olmo2,
    read_olmoe,
    read_phi,
    read_phi3,
    read_qwen2,
    read_qwen2_moe,
    read_qwen3_moe,
    read_seed_oss,
    read_smollm3,
    read_stablelm,
    read_starcoder2,
)

BLOCK = re.compile(r"blk\.(\d{1,4})\.([\w.]+?)(?:\.(weight|bias))?")
OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "position_embd": "model.embed_positions",
    "output_norm": "model.norm",
    "output": "lm_head",
}
ROPE_DIVISORS = "rope_freqs.weight"  # tables of divisors for the rotary frequencies, not weights
LONG_DIVISORS, SHORT_DIVISORS = "rope_factors_long.weight", "rope_factors_short.weight"
TABLES = frozenset({ROPE_DIVISORS, LONG_DIVISORS, SHORT_DIVISORS})
BARE = frozenset(  # no modules that have a weight
    {
        *("self_attn.sinks", "linear_attn.A_log", "linear_attn.dt_bias", "mlp.expert_bias", "layer_scalar"),
        *("mlp.routed.scale", "mlp.routed.per_expert_scale"),
    }
)
EXPERT = "mlp.experts.*"  # * stands for each number, one behind the other in one tensor
PARTS: Mapping[str, tuple[str, ...]] = {
    "attn_norm": ("input_layernorm",),
    "attn_q": ("self_attn.q_proj",),
    "attn_k": ("self_attn.k_proj",),
    "attn_v": ("self_attn.v_proj",),
    "attn_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn_q_norm": ("self_attn.q_norm",),
    "attn_k_norm": ("self_attn.k_norm",),
    "attn_output": ("self_attn.o_proj",),
    "attn_sinks": ("self_attn.sinks",),
    "post_attention_norm": ("post_attention_layernorm",),
    "ffn_norm": ("post_attention_layernorm",),
    "ffn_gate": ("mlp.gate_proj",),
    "ffn_up": ("mlp.up_proj",),
    "ffn_down": ("mlp.down_proj",),
    "post_ffw_norm": ("post_feedforward_layernorm",),
    "ffn_gate_inp": ("mlp.gate",),
    "exp_probs_b": ("mlp.expert_bias",),
    "ffn_gate_inp_shexp": ("mlp.shared_expert_gate",),
    **{f"ffn_{part}_shexp": (f"mlp.shared_expert.{part}_proj",) for part in ("gate", "up", "down")},
    **{f"ffn_{part}_exps": (f"{EXPERT}.{part}_proj",) for part in ("gate", "up", "down")},
    "ffn_gate_up_exps": (f"{EXPERT}.gate_proj", f"{EXPERT}.up_proj"),
}
FUSED_UP = {"ffn_up": ("mlp.gate_proj", "mlp.up_proj")}
GEMMA_PARTS = {"ffn_norm": ("pre_feedforward_layernorm",)}
GEMMA4_PARTS = {
    **GEMMA_PARTS,
    "inp_gate": ("per_layer_input_gate",),
    "proj": ("per_layer_projection",),
    "post_norm": ("post_per_layer_input_norm",),
    "layer_output_scale": ("layer_scalar",),
    # of mixtures, beside a dense feed-forward
    "post_ffw_norm_1": ("mlp.after_dense",),
    "pre_ffw_norm_2": ("mlp.before_experts",),
    "post_ffw_norm_2": ("mlp.after_experts",),
    "ffn_gate_inp": ("mlp.routed.gate",),
    "ffn_gate_inp.scale": ("mlp.routed.scale",),
    "ffn_down_exps.scale": ("mlp.routed.per_expert_scale",),
    **{f"ffn_{part}_exps": (f"mlp.routed.experts.*.{part}_proj",) for part in ("gate", "up", "down")},
    "ffn_gate_up_exps": ("mlp.routed.experts.*.gate_proj", "mlp.routed.experts.*.up_proj"),
}
GEMMA4_OUTSIDE = {
    "per_layer_token_embd": "model.embed_tokens_per_layer",
    "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
}
LFM2_PARTS = {
    "shortconv.in_proj": ("conv.before_proj", "conv.after_proj", "conv.middle_proj"),
    "shortconv.conv": ("conv.conv",),
    "shortconv.out_proj": ("conv.out_proj",),
}
DELTA_PARTS = {
    "attn_q": ("self_attn.q_proj", "self_attn.gate_proj"),
    "attn_qkv": ("linear_attn.in_proj_qkv",),
    "attn_gate": ("linear_attn.in_proj_z",),
    "ssm_conv1d": ("linear_attn.conv1d",),
    "ssm_a": ("linear_attn.A_log",),
    "ssm_dt": ("linear_attn.dt_bias",),
    "ssm_norm": ("linear_attn.norm",),
    "ssm_out": ("linear_attn.out_proj",),
}
QWEN35_PARTS = {**DELTA_PARTS, "ssm_alpha": ("linear_attn.in_proj_a",), "ssm_beta": ("linear_attn.in_proj_b",)}
QWEN3NEXT_PARTS = {
    **DELTA_PARTS,
    "ssm_in": ("linear_attn.in_proj_qkv", "linear_attn.in_proj_z"),  # of earlier files
    "ssm_ba": ("linear_attn.in_proj_b", "linear_attn.in_proj_a"),
}
STABLELM_PARTS = {f"attn_{part}_norm": (f"self_attn.{part}_norm.norms.*",) for part in "qk"}
LFM2_ENDS = {"token_embd_norm": "model.norm"}  # in spite of its name
XIELU = {f"xielu.{side}": f"mlp.act_fn.{side}" for side in ("alpha_p", "alpha_n")}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture: its names in config.json, and how its tensors differ from the blueprint's weights."""

    model_type: str
    model_class: str  # transformers' own
    read: Callable[[Fields, Config], Config] = lambda _, config: config
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # where they differ from PARTS
    outside: Mapping[str, str] = field(default_factory=dict)  # where they differ from OUTSIDE
    numbers: Mapping[str, str] = field(default_factory=dict)  # weights of a layer that are metadata, by their keys
    rows: Mapping[str, Order] = field(default_factory=dict)  # of parts whose rows have another order
    columns: Mapping[str, Order] = field(default_factory=dict)
    norms: Callable[[Array], Array] = same  # what their weights are, of what the file has
    values: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)  # the same of parts, before that

    def groups(self, stored: str, shapes: Collection[str]) -> list[tuple[str, ...]]:
        """The weights of `shapes` in a tensor: those of each expert or head where it is that of all of them, else one
        group. In a group they lie one below the other. None at all where the model has no such tensor."""
        names = self.names_in(stored)
        numbers = count() if self.is_stacked(stored) else (0,)
        groups = (tuple(name.replace("*", str(number)) for name in names) for number in numbers)
        return [*takewhile(lambda group: group and all(name in shapes for name in group), groups)]

    def names_in(self, stored: str) -> tuple[str, ...]:
        """The weights in a tensor, with * for a number; none where no architecture has it."""
        stem, _, kind = stored.rpartition(".")
        outside = {**OUTSIDE, **self.outside}
        if stem in outside and kind in ("weight", "bias"):
            return (f"{outside[stem]}.{kind}",)
        match = BLOCK.fullmatch(stored)
        if match is None:
            return ()
        layer = f"model.layers.{int(match[1])}"
        parts = self.parts_in(stored)
        return tuple(f"{layer}.{part}" if part in BARE else f"{layer}.{part}.{match[3]}" for part in parts)

    def is_stacked(self, stored: str) -> bool:
        """Whether a tensor is that of all experts, or of all heads."""
        return any("*" in part for part in self.parts_in(stored))

    def parts_in(self, stored: str) -> tuple[str, ...]:
        """The parts of a layer in a tensor; none where no architecture has it."""
        return {**PARTS, **self.parts}.get(part_of(stored), ())

    def undo(self, stored: str) -> Callable[[Array], Array]:
        """What the numbers of a tensor that is no matrix are, of those in the file."""
        return self.values.get(part_of(stored), self.norms if stored.endswith("_norm.weight") else same)


def part_of(stored: str) -> str:
    """What a layer calls a tensor, such as attn_q; "" outside of the layers."""
    match = BLOCK.fullmatch(stored)
    return "" if match is None else match[2]


def unread(config: ModelConfig) -> frozenset[str]:
    """Keys and values of layers that read those of another one; a file may hold them all the same."""
    sharing = [layer for layer, kind in enumerate(config.layers) if kind.source is not None]
    return frozenset(f"blk.{layer}.{part}.weight" for layer in sharing for part in ("attn_k", "attn_v", "attn_k_norm"))


def layer_of(stored: str) -> int | None:
    """The number of a tensor's layer."""
    match = BLOCK.fullmatch(stored)
    return None if match is None else int(match[1])


Q_AND_K = {"attn_q": rotary_pairs, "attn_k": rotary_pairs}
DELTA: dict[str, Any] = {"norms": without_one, "values": {"ssm_norm": same, "ssm_a": logarithms}}
QWEN35: dict[str, Any] = {
    **DELTA,
    "parts": QWEN35_PARTS,
    "rows": {
        "attn_q": queries_beside_gates,
        "attn_qkv": values_behind_keys,
        "ssm_conv1d": values_behind_keys,
        **dict.fromkeys(("attn_gate", "ssm_alpha", "ssm_beta", "ssm_a", "ssm_dt"), value_heads),
    },
    "columns": {"ssm_out": value_heads},
}
QWEN3NEXT: dict[str, Any] = {
    **DELTA,
    "parts": QWEN3NEXT_PARTS,
    "rows": {"attn_q": queries_beside_gates, "ssm_in": queries_to_gates, "ssm_ba": strengths_beside_decays},
}
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", "LlamaForCausalLM", read_llama, rows=Q_AND_K),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", read_qwen2),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM"),
    "gemma2": Architecture("gemma2", "Gemma2ForCausalLM", read_gemma2, GEMMA_PARTS, norms=without_one),
    "gemma3": Architecture("gemma3_text", "Gemma3ForCausalLM", read_gemma3, GEMMA_PARTS, norms=without_one),
    "gemma4": Architecture("gemma4_text", "Gemma4ForCausalLM", read_gemma4, GEMMA4_PARTS, outside=GEMMA4_OUTSIDE),
    "gemma": Architecture("gemma", "GemmaForCausalLM", read_gemma, norms=without_one),
    "granite": Architecture("granite", "GraniteForCausalLM", read_granite, rows=Q_AND_K),
    "arcee": Architecture("arcee", "ArceeForCausalLM", read_arcee, rows=Q_AND_K),
    "seed_oss": Architecture("seed_oss", "SeedOssForCausalLM", read_seed_oss),
    "phi3": Architecture("phi3", "Phi3ForCausalLM", read_phi3, FUSED_UP),
    "olmo": Architecture("olmo", "OlmoForCausalLM", read_olmo, rows=Q_AND_K),
    "olmo2": Architecture("olmo2", "Olmo2ForCausalLM", read_olmo2),
    "command-r": Architecture("cohere", "CohereForCausalLM", read_cohere, rows=Q_AND_K),
    "cohere2": Architecture("cohere2", "Cohere2ForCausalLM", read_cohere2, rows=Q_AND_K),
    "ernie4_5": Architecture("ernie4_5", "Ernie4_5ForCausalLM", read_ernie4_5, rows=Q_AND_K),
    "chatglm": Architecture(
        "glm", "GlmForCausalLM", read_glm4, FUSED_UP, rows={**Q_AND_K, "attn_qkv": fused_rotary_pairs}
    ),
    "glm4": Architecture("glm4", "Glm4ForCausalLM", read_glm4, {**GEMMA_PARTS, **FUSED_UP}, rows=Q_AND_K),
    "starcoder2": Architecture("starcoder2", "Starcoder2ForCausalLM", read_starcoder2),
    "stablelm": Architecture("stablelm", "StableLmForCausalLM", read_stablelm, STABLELM_PARTS),
    "jais2": Architecture("jais2", "Jais2ForCausalLM", read_jais2),
    "phi2": Architecture("phi", "PhiForCausalLM", read_phi),
    "smollm3": Architecture("smollm3", "SmolLM3ForCausalLM", read_smollm3, rows=Q_AND_K),
    "qwen2moe": Architecture("qwen2_moe", "Qwen2MoeForCausalLM", read_qwen2_moe),
    "qwen3moe": Architecture("qwen3_moe", "Qwen3MoeForCausalLM", read_qwen3_moe),
    "olmoe": Architecture("olmoe", "OlmoeForCausalLM", read_olmoe),
    "granitemoe": Architecture("granitemoe", "GraniteMoeForCausalLM", read_granitemoe, rows=Q_AND_K),
    "glm4moe": Architecture("glm4_moe", "Glm4MoeForCausalLM", read_glm4_moe),
    "dots1": Architecture("dots1", "Dots1ForCausalLM", read_dots1),
    "minimax-m2": Architecture("minimax_m2", "MiniMaxM2ForCausalLM", read_minimax_m2),
    "hunyuan-moe": Architecture("hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM", read_hunyuan_moe),
    "gpt-oss": Architecture("gpt_oss", "GptOssForCausalLM", read_gpt_oss),
    "mistral3": Architecture("ministral3", "Ministral3ForCausalLM", read_ministral3, rows=Q_AND_K),
    "apertus": Architecture("apertus", "ApertusForCausalLM", read_apertus, numbers=XIELU),
    "lfm2": Architecture("lfm2", "Lfm2ForCausalLM", read_lfm2, LFM2_PARTS, outside=LFM2_ENDS),
    "lfm2moe": Architecture("lfm2_moe", "Lfm2MoeForCausalLM", read_lfm2_moe, LFM2_PARTS, outside=LFM2_ENDS),
    "exaone": Architecture("exaone", "ExaoneForCausalLM"),
    "exaone4": Architecture("exaone4", "Exaone4ForCausalLM", read_exaone4),
    "hunyuan-dense": Architecture("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM"),
    "qwen35": Architecture("qwen3_5_text", "Qwen3_5ForCausalLM", read_qwen3_5, **QWEN35),
    "qwen35moe": Architecture("qwen3_5_moe_text", "Qwen3_5MoeForCausalLM", read_qwen3_5_moe, **QWEN35),
    "qwen3next": Architecture("qwen3_next", "Qwen3NextForCausalLM", read_qwen3_next, **QWEN3NEXT),
    "gpt2": Architecture("gpt2", "GPT2LMHeadModel", read_gpt2),
    "gptneox": Architecture("gpt_neox", "GPTNeoXForCausalLM", read_gpt_neox),
}


def architecture(name: object) -> Architecture:
    """The architecture of that name. Raises GGUFError."""
    if not isinstance(name, str) or name not in ARCHITECTURES:
        names = nearest_first(name, ARCHITECTURES)
        raise GGUFError(f"architecture {quote(name)} is not supported (supported: {names})")
    return ARCHITECTURES[name]

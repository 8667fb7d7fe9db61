"""The architectures that GGUF files name, and what their tensors hold.

Names and keys: github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py, as its loader reads them
(src/models/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.errors import GGUFError
from tokenglass.model.importers.gguf_readers import (
    Config,
    read_apertus,
    read_arcee,
    read_cohere2,
    read_ernie4_5,
    read_exaone4,
    read_gemma,
    read_gemma2,
    read_gemma3,
    read_glm4,
    read_gpt2,
    read_gpt_neox,
    read_gpt_oss,
    read_granite,
    read_granitemoe,
    read_lfm2,
    read_llama,
    read_ministral3,
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

BLOCK = re.compile(r"blk\.(\d{1,4})\.([\w.]+)\.(weight|bias)")
OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "position_embd": "model.embed_positions",
    "output_norm": "model.norm",
    "output": "lm_head",
}
ROPE_DIVISORS = "rope_freqs.weight"  # tables of divisors for the rotary frequencies, not weights
LONG_DIVISORS, SHORT_DIVISORS = "rope_factors_long.weight", "rope_factors_short.weight"
TABLES = frozenset({ROPE_DIVISORS, LONG_DIVISORS, SHORT_DIVISORS})
SINKS = "self_attn.sinks"  # which is no module with a weight
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
    "attn_sinks": (SINKS,),
    "post_attention_norm": ("post_attention_layernorm",),
    "ffn_norm": ("post_attention_layernorm",),
    "ffn_gate": ("mlp.gate_proj",),
    "ffn_up": ("mlp.up_proj",),
    "ffn_down": ("mlp.down_proj",),
    "post_ffw_norm": ("post_feedforward_layernorm",),
    "ffn_gate_inp": ("mlp.gate",),
    "ffn_gate_inp_shexp": ("mlp.shared_expert_gate",),
    **{f"ffn_{part}_shexp": (f"mlp.shared_expert.{part}_proj",) for part in ("gate", "up", "down")},
    **{f"ffn_{part}_exps": (f"{EXPERT}.{part}_proj",) for part in ("gate", "up", "down")},
    "ffn_gate_up_exps": (f"{EXPERT}.gate_proj", f"{EXPERT}.up_proj"),
}
STACKED = "_exps"
FUSED_UP = {"ffn_up": ("mlp.gate_proj", "mlp.up_proj")}
GEMMA_PARTS = {"ffn_norm": ("pre_feedforward_layernorm",)}
LFM2_PARTS = {
    "shortconv.in_proj": ("conv.before_proj", "conv.after_proj", "conv.middle_proj"),
    "shortconv.conv": ("conv.conv",),
    "shortconv.out_proj": ("conv.out_proj",),
}
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
    interleaved: frozenset[str] = frozenset()  # rotary pairs of these parts lie side by side, not in halves
    norm_offset: float = 0.0  # that the converter added to the weights of norms

    def weights(self, stored: str, experts: int) -> tuple[str, ...] | None:
        """The blueprint's weights in a tensor, one below the other; None where no architecture has it."""
        stem, _, kind = stored.rpartition(".")
        outside = {**OUTSIDE, **self.outside}
        if stem in outside and kind in ("weight", "bias"):
            return (f"{outside[stem]}.{kind}",)
        match = BLOCK.fullmatch(stored)
        parts = {**PARTS, **self.parts}.get(match[2]) if match else None
        if match is None or parts is None:
            return None
        if match[2].endswith(STACKED):
            parts = tuple(part.replace("*", str(number)) for number in range(experts) for part in parts)
        layer = f"model.layers.{int(match[1])}"
        return tuple(f"{layer}.{part}" if part == SINKS else f"{layer}.{part}.{match[3]}" for part in parts)

    def is_stacked(self, stored: str) -> bool:
        """Whether a tensor is that of all experts."""
        match = BLOCK.fullmatch(stored)
        return match is not None and match[2].endswith(STACKED)

    def in_pairs(self, stored: str) -> bool:
        """Whether a tensor's numbers that rotate together lie side by side, and not in the halves of a head."""
        match = BLOCK.fullmatch(stored)
        return match is not None and match[2] in self.interleaved


Q_AND_K = frozenset({"attn_q", "attn_k"})
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", "LlamaForCausalLM", read_llama, interleaved=Q_AND_K),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", read_qwen2),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM"),
    "gemma2": Architecture("gemma2", "Gemma2ForCausalLM", read_gemma2, GEMMA_PARTS, norm_offset=1.0),
    "gemma3": Architecture("gemma3_text", "Gemma3ForCausalLM", read_gemma3, GEMMA_PARTS, norm_offset=1.0),
    "gemma": Architecture("gemma", "GemmaForCausalLM", read_gemma, norm_offset=1.0),
    "granite": Architecture("granite", "GraniteForCausalLM", read_granite, interleaved=Q_AND_K),
    "arcee": Architecture("arcee", "ArceeForCausalLM", read_arcee, interleaved=Q_AND_K),
    "seed_oss": Architecture("seed_oss", "SeedOssForCausalLM", read_seed_oss),
    "phi3": Architecture("phi3", "Phi3ForCausalLM", read_phi3, FUSED_UP),
    "olmo2": Architecture("olmo2", "Olmo2ForCausalLM", read_olmo2),
    "cohere2": Architecture("cohere2", "Cohere2ForCausalLM", read_cohere2, interleaved=Q_AND_K),
    "ernie4_5": Architecture("ernie4_5", "Ernie4_5ForCausalLM", read_ernie4_5, interleaved=Q_AND_K),
    "glm4": Architecture("glm4", "Glm4ForCausalLM", read_glm4, {**GEMMA_PARTS, **FUSED_UP}, interleaved=Q_AND_K),
    "starcoder2": Architecture("starcoder2", "Starcoder2ForCausalLM", read_starcoder2),
    "stablelm": Architecture("stablelm", "StableLmForCausalLM", read_stablelm),
    "phi2": Architecture("phi", "PhiForCausalLM", read_phi),
    "smollm3": Architecture("smollm3", "SmolLM3ForCausalLM", read_smollm3, interleaved=Q_AND_K),
    "qwen2moe": Architecture("qwen2_moe", "Qwen2MoeForCausalLM", read_qwen2_moe),
    "qwen3moe": Architecture("qwen3_moe", "Qwen3MoeForCausalLM", read_qwen3_moe),
    "olmoe": Architecture("olmoe", "OlmoeForCausalLM", read_olmoe),
    "granitemoe": Architecture("granitemoe", "GraniteMoeForCausalLM", read_granitemoe, interleaved=Q_AND_K),
    "gpt-oss": Architecture("gpt_oss", "GptOssForCausalLM", read_gpt_oss),
    "mistral3": Architecture("ministral3", "Ministral3ForCausalLM", read_ministral3, interleaved=Q_AND_K),
    "apertus": Architecture("apertus", "ApertusForCausalLM", read_apertus, numbers=XIELU),
    "lfm2": Architecture("lfm2", "Lfm2ForCausalLM", read_lfm2, LFM2_PARTS, outside=LFM2_ENDS),
    "exaone4": Architecture("exaone4", "Exaone4ForCausalLM", read_exaone4),
    "hunyuan-dense": Architecture("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM"),
    "gpt2": Architecture("gpt2", "GPT2LMHeadModel", read_gpt2),
    "gptneox": Architecture("gpt_neox", "GPTNeoXForCausalLM", read_gpt_neox),
}


def architecture(name: object) -> Architecture:
    """The architecture of that name. Raises GGUFError."""
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise GGUFError(f"architecture {quote(name)} is not supported (supported: {', '.join(ARCHITECTURES)})")
    return ARCHITECTURES[name]

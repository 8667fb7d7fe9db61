"""The architectures that GGUF files name, and how their tensors are called in Hugging Face's layout.

Names: github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import GGUFError

BLOCK = re.compile(r"blk\.(\d{1,4})\.(\w+)\.(weight|bias)")
OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
ROPE_FACTORS = "rope_freqs.weight"  # a table of divisors for the rotary frequencies, not a weight
LLAMA_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture: its names in config.json, the parts of a block, and the parts whose rows are reordered."""

    model_type: str
    model_class: str  # transformers' own
    block: Mapping[str, str]
    interleaved: frozenset[str] = field(default=frozenset())  # rotary pairs stored side by side, not in halves

    def name(self, stored: str) -> str | None:
        """A tensor's name in Hugging Face's layout; None where the architecture does not have it."""
        if stored in OUTSIDE:
            return OUTSIDE[stored]
        match = BLOCK.fullmatch(stored)
        if match is None or match[2] not in self.block:
            return None
        return f"model.layers.{int(match[1])}.{self.block[match[2]]}.{match[3]}"

    def part(self, stored: str) -> str:
        """The part of a block that a tensor belongs to, such as attn_q; "" outside the blocks."""
        match = BLOCK.fullmatch(stored)
        return match[2] if match else ""


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", "LlamaForCausalLM", LLAMA_BLOCK, interleaved=frozenset({"attn_q", "attn_k"})),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", LLAMA_BLOCK),
    "qwen3": Architecture(
        "qwen3",
        "Qwen3ForCausalLM",
        {**LLAMA_BLOCK, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
    ),
}


def architecture(name: object) -> Architecture:
    """The architecture of that name. Raises GGUFError."""
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise GGUFError(f"architecture {quote(name)} is not supported (supported: {', '.join(ARCHITECTURES)})")
    return ARCHITECTURES[name]

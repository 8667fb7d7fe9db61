"""What an unsupported family has that is not built, as far as its config.json says. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenglass.model.config.fields import first_few, shown_name

PIECES: Mapping[str, tuple[str, ...]] = {
    "a mixture of experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "latent attention": ("kv_lora_rank",),
    "state-space layers": ("mamba_d_state", "mamba_n_heads", "state_size", "ssm_cfg"),
    "linear attention": ("linear_num_value_heads", "linear_attn_config"),
    "chunked attention": ("attention_chunk_size",),
    "ALiBi positions": ("alibi",),
    "an encoder": ("is_encoder_decoder", "encoder_layers"),
    "several residual streams": ("altup_num_inputs",),
    "residuals of low rank": ("laurel_rank",),
    "sparse activations": ("activation_sparsity_pattern",),
    "code of its own": ("auto_map",),
}
BUILT_LAYERS = ("full_attention", "sliding_attention", "attention", "conv")


def missing_pieces(raw: Mapping[str, Any]) -> list[str]:
    """The pieces by their usual names, those of a wrapper's text included; none where the file names none of them."""
    inner = raw.get("text_config")
    whole = {**raw, **(inner if isinstance(inner, Mapping) else {})}
    types = whole.get("layer_types")
    other = dict.fromkeys(str(name) for name in types if name not in BUILT_LAYERS) if isinstance(types, list) else ()
    named = [piece for piece, keys in PIECES.items() if any(is_set(whole.get(key)) for key in keys)]
    return [*named, *([f"layers of the kind {first_few([shown_name(name) for name in other])}"] if other else [])]


def is_set(value: Any) -> bool:
    """Whether a field asks for something: one expert is none; a list does where an item does."""
    if isinstance(value, list | tuple):
        return any(value)
    return value is True or (bool(value) and value != 1)

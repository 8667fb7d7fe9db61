"""A small random model as a GGUF file, for a real server on loopback: llama.cpp's, in xllamacpp."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import tiny
from gguf_metadata import byte_level_metadata
from tiny_gguf import TYPES, write_gguf

CONTEXT = 8192
TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}<assistant>"


def write_model(folder: Path) -> Path:
    """A Llama in 8 bits, with a chat template. Its most probable tokens are ASCII: of a character that several tokens
    make, llama.cpp's stream tells the last alone."""
    metadata = byte_level_metadata(bos_token_id=0, eos_token_id=0)
    tokens = metadata["tokenizer.ggml.tokens"]
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": len(tokens)}
    original = tiny.save_llama(folder / "original", max_position_embeddings=CONTEXT, **sizes)
    weights = safetensors.torch.load_file(original / "model.safetensors")
    weights["lm_head.weight"][[not token.isascii() for token in tokens]] = 0
    safetensors.torch.save_file(weights, original / "model.safetensors")
    more = {"tokenizer.chat_template": TEMPLATE}
    return write_gguf(folder / "a.gguf", original, quantised=TYPES.Q8_0, tokenizer={**metadata, **more})

"""Names of other programs for our options (llama.cpp's, transformers'), and our own former ones.

They are read like ours, and no help shows them.
"""

from __future__ import annotations

ALIASES: dict[str, tuple[str, ...]] = {
    "--temperature": ("--temp",),
    "--max-new-tokens": ("--max-tokens",),
    "--prompt-file": ("-f", "--file"),
    "--seed": ("-s",),
    "--repetition-penalty": ("--repeat-penalty",),
    "--no-repeat-ngram": ("--no-repeat-ngram-size",),
    "--beams": ("--num-beams",),
    "--num-samples": ("--num-return-sequences",),
    "--candidates": ("--top",),
}
APART = ("-p", "-f", "-s")  # their value stands behind a space: "-said he" is a text, and no seed


def with_dashes(name: str) -> str:
    """An option or a sampler as the command line has it, where it is written as in Python: top_k."""
    return name.replace("_", "-")

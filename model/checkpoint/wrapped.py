"""The tensors of a model that sees, hears or drafts: those of its text model, by the names they have alone, and the
others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from tokenglass.model.checkpoint.headers import TensorInfo
from tokenglass.model.config.fields import shown_name
from tokenglass.model.errors import CheckpointError

# as releases have called the text model, and what stands for it in the names of one that is alone
PREFIXES = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.",
    "model.language_model.": "model.",
    "model.text_model.": "model.",
}
ALONE = re.compile(r"model\.(layers|embed_tokens|norm)\.|lm_head\.")
DRAFTS = "mtp."  # as releases of Qwen call their multi-token prediction
Tensors = tuple[TensorInfo, ...]


def split_wrapper(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """The tensors of the text model, with its own names, and all others. Raises CheckpointError."""
    names = {info: text_name(info.name) for info in tensors}
    text = tuple(replace(info, name=name) for info, name in names.items() if name is not None)
    if len({info.name for info in text}) < len(text):
        raise CheckpointError(f"{text[0].file}: holds two tensors for one weight of the text model")
    return text, tuple(info for info, name in names.items() if name is None)


def split_drafts(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """The tensors of a text model, and those of what drafts several tokens, which transformers does not read either."""
    drafts = tuple(info for info in tensors if info.name.startswith(DRAFTS))
    return tuple(info for info in tensors if not info.name.startswith(DRAFTS)), drafts


def text_name(name: str) -> str | None:
    """What a tensor of the text model is called where the model is alone; None for a tensor of another part."""
    for prefix, own in PREFIXES.items():
        if name.startswith(prefix):
            return own + name.removeprefix(prefix)
    return name if ALONE.match(name) else None


def groups_of(tensors: Iterable[TensorInfo]) -> dict[str, tuple[int, int]]:
    """How many tensors each part has, and their bytes, by the first word of their names."""
    groups: dict[str, tuple[int, int]] = {}
    for info in tensors:
        part = shown_name(info.name.removeprefix("model.").partition(".")[0])
        count, nbytes = groups.get(part, (0, 0))
        groups[part] = (count + 1, nbytes + info.nbytes)
    return groups

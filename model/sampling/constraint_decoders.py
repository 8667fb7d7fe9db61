"""Whether a tokenizer's decoder writes exactly its tokens' pieces, one after the other: a constraint counts on that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenglass.model.text.tokenizer import Tokenizer

MARK = "▁"  # SentencePiece's space
SPACES = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}


def obstacle(tokenizer: Tokenizer) -> str | None:
    """What in the decoder makes another text of the pieces, or None.

    What it does at the beginning of a whole text (Metaspace, Strip) is none: a new text stands behind its prompt.
    """
    decoder = tokenizer.backend.decoder
    parts = list(flatten(None if decoder is None else json.loads(decoder.__getstate__())))
    names = [part["type"] for part in parts]
    if not parts:
        return "there is none, so that spaces come between the tokens"
    if names in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        return None
    for place, part in enumerate(parts):
        before = names[:place]
        if not is_plain(part, before):
            return f"{part['type']} changes more than single tokens"
    if not any(part == SPACES or part["type"] == "Metaspace" for part in parts) and has_marks(tokenizer):
        return f"it does not make spaces of {MARK}"
    return None


def flatten(part: Any) -> Iterator[dict[str, Any]]:
    """The decoders in their order."""
    if part is None:
        return
    if part["type"] != "Sequence":
        yield part
        return
    for inner in part["decoders"]:
        yield from flatten(inner)


def is_plain(part: dict[str, Any], before: list[str]) -> bool:
    """Whether a part, behind others, only writes each token as its piece."""
    name = part["type"]
    if name == "Replace":
        return part == SPACES and not {"ByteFallback", "Fuse"} & set(before)
    if name == "Metaspace":
        return part["replacement"] == MARK and not before
    if name == "Strip":  # behind Fuse it strips the whole text, else every token
        return part["content"] == " " and part["stop"] == 0 and "Fuse" in before
    return name == "Fuse" or (name == "ByteFallback" and "Fuse" not in before)


def has_marks(tokenizer: Tokenizer) -> bool:
    return any(MARK in token for token in tokenizer.backend.get_vocab(with_added_tokens=True))

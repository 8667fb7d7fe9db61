"""Token healing: the prompt's last token is chosen anew, so that a word cut by the prompt's edge can go on.

A prompt that ends in the middle of a word ends in a token that the model saw rarely there (Lundberg 2023, "The Art of
Prompt Design: Prompt Boundaries and Token Healing").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokenglass.model.sampling.context import Mask
from tokenglass.model.text.tokenizer import Tokenizer


def heal(tokenizer: Tokenizer, prompt_ids: tuple[int, ...]) -> tuple[tuple[int, ...], bytes]:
    """The prompt without its last token, and that token's bytes, where a longer token begins with them.

    Otherwise, and where the last token is the only one, special, or ends inside a character: the prompt as it is.
    """
    *before, last = prompt_ids
    piece = tokenizer.piece(last)
    whole, rest = tokenizer.decode(prompt_ids), tokenizer.decode(before)
    said = text_of(piece)
    if len(before) <= len(tokenizer.start_ids) or tokenizer.is_hidden(last) or said is None or rest + said != whole:
        return prompt_ids, b""
    longer = any(other.startswith(piece) and len(other) > len(piece) for other in tokenizer.pieces)
    return (tuple(before), piece) if longer else (prompt_ids, b"")


def text_of(piece: bytes) -> str | None:
    """Its text, or None where it is no whole characters."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return None


class Healing:
    """Lets only tokens through that spell out the healed bytes, until they are there."""

    def __init__(self, tokenizer: Tokenizer, healed: bytes):
        self._tokenizer = tokenizer
        self._healed = healed

    def may_go_on(self, count: int) -> bool:
        """Whether something may be missing behind `count` new tokens, each of which says a byte at least."""
        return count < len(self._healed)

    def mask(self, new_ids: Sequence[int]) -> Mask | None:
        """What may come after these new tokens; None when all of it is spelt out."""
        said = 0
        for token_id in new_ids:
            said += 0 if self._tokenizer.is_hidden(token_id) else len(self._tokenizer.piece(token_id))
            if said >= len(self._healed):
                return None
        missing, pieces = self._healed[said:], self._tokenizer.pieces
        allowed = np.array([bool(p) and (p.startswith(missing) or missing.startswith(p)) for p in pieces])
        allowed[list(self._tokenizer.special_tokens)] = False
        return Mask("heal", allowed)

"""The tokenizer as llguidance asks for one."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from tokenglass.model.errors import TokenizerError

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from tokenglass.model.text.tokenizer import Tokenizer

BEFORE = "\x02"  # put before a text to have it encoded as in the middle of one; no vocabulary merges it


class ConstraintTokens:
    """Every token's bytes, and how a text is spelt with them.

    Special tokens and the checkpoint's end tokens stand for no text. llguidance wants one end token: that is an id
    behind the last, which is never shown to anybody else.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, eos_token_ids: frozenset[int], vocab_size: int | None):
        """Tokens beyond the `vocab_size` of the model's logits are none."""
        self.size = max(tokenizer.vocab_size, *(token_id + 1 for token_id in eos_token_ids), 0)
        self.size = self.size if vocab_size is None else min(self.size, vocab_size)
        self.eos_token_id = self.size
        pieces = tokenizer.pieces[: self.size]
        self.tokens = [*pieces, *[b""] * (self.size - len(pieces)), b"<end>"]
        silent = [i for i in range(self.size) if tokenizer.is_hidden(i) or i in eos_token_ids]
        self.special_token_ids = [*silent, self.eos_token_id]
        self._silent = frozenset(self.special_token_ids)
        self._tokenizer = tokenizer

    def for_llguidance(self) -> LLTokenizer:
        """Its own tokenizer, made of these."""
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415  (an extra)

        return LLTokenizer(TokenizerWrapper(self), slices=[])  # they cost more to make than a few hundred masks gain

    def __call__(self, text: bytes) -> list[int]:
        """The ids of a text (UTF-8) as the tokenizer has it in the middle of one, else of its longest pieces.

        The tokenizer has another text where it puts a space in front, reads the name of a special token, or normalises.
        """
        with suppress(TokenizerError):
            for before in ("", BEFORE):
                known = self._tokenizer.encode_bare(before)
                ids = self._tokenizer.encode_bare(before + text.decode())
                new = list(ids[len(known) :])
                if ids[: len(known)] == known and self._spelling(new) == text:
                    return new
        return self._longest_pieces(text)

    def _spelling(self, token_ids: list[int]) -> bytes | None:
        """Their text, if each of them has one."""
        if any(token_id >= self.size or token_id in self._silent for token_id in token_ids):
            return None
        return b"".join(self.tokens[token_id] for token_id in token_ids)

    def _longest_pieces(self, text: bytes) -> list[int]:
        """As far as there are pieces."""
        ids, place = [], 0
        while place < len(text):
            ends = range(min(len(text), place + self._longest), place, -1)
            end = next((end for end in ends if text[place:end] in self._ids), None)
            if end is None:
                break
            ids.append(self._ids[text[place:end]])
            place = end
        return ids

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {piece: i for i, piece in enumerate(self.tokens) if piece and i not in self._silent}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=0)

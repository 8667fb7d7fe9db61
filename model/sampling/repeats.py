"""Processors against repeated sequences. Both count the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tokenglass.model.sampling import lazy_numpy as np
from tokenglass.model.sampling.penalties import penalty_window
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.settings import number, texts

if TYPE_CHECKING:
    from tokenglass.model.sampling.provenance import Ints
    from tokenglass.model.sampling.scores import Scores
    from tokenglass.model.text.tokenizer import Tokenizer

LONGEST = 50  # tokens that a repeated sequence is followed back


def breakers_of(wanted: Sequence[str], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the tokens that hold one of these texts."""
    parts = [text.encode() for text in wanted]
    return tuple(i for i, piece in enumerate(tokenizer.pieces) if any(part in piece for part in parts))


@dataclass(frozen=True, slots=True)
class NoRepeatNgram(Processor):
    """Cut every token that would complete an n-gram that occurred (Paulus et al. 2017, arXiv 1705.04304)."""

    name: ClassVar[str] = "no-repeat-ngram"
    size: int = number(
        "no_repeat_ngram_size",
        0,
        least=0,
        expected="0 (off) or more",
        flags=("--no-repeat-ngram",),
        help="No run of n tokens comes twice; 0 is off.",
        in_transformers=0,
    )

    def __call__(self, scores: Scores) -> None:
        text = scores.text
        forbidden = text[places_after(text, self.size - 1)]
        scores.remove(self.name, forbidden[forbidden < scores.size])


@dataclass(frozen=True, slots=True)
class DRY(Processor):
    """Subtract multiplier * base ** (length - allowed_length) from a token that would prolong a repeated sequence.

    `length` is that of the longest end of the text that occurred before this token; no sequence goes across a breaker.
    "Don't repeat yourself", by p-e-w: github.com/oobabooga/text-generation-webui/pull/5677.
    """

    name: ClassVar[str] = "dry"
    multiplier: float = number(
        "dry_multiplier",
        0.0,
        least=0,
        most=1e3,
        expected="between 0 (off) and 1000",
        help="Penalise what would extend a repetition (DRY); 0 is off.",
    )
    base: float = number(
        "dry_base",
        1.75,
        least=1,
        most=1e3,
        expected="between 1 and 1000",
        help="DRY grows by this with each repeated token.",
    )
    allowed_length: int = number(
        "dry_allowed_length",
        2,
        least=1,
        expected="1 or more",
        help="Repetitions up to this length are free.",
    )
    sequence_breakers: tuple[int, ...] = texts(
        "dry_sequence_breakers",
        (),
        flags=("--dry-breaker",),
        metavar="TEXT",
        help="No repetition reaches across it (repeatable).",
        read=lambda wanted, tokenizer, _: breakers_of(wanted, tokenizer),
        otherwise=("\n", ":", '"', "*"),  # those of its first description
    )
    window: int = penalty_window()

    def __call__(self, scores: Scores) -> None:
        lengths = self.lengths(scores.text[-self.window :] if self.window else scores.text)
        lengths = {k: n for k, n in lengths.items() if k < scores.size}
        if not lengths:
            return
        repeated = np.array(list(lengths), np.int64)
        penalty = self.multiplier * self.base ** (np.array(list(lengths.values())) - float(self.allowed_length))
        scores.edit(self.name, repeated, scores.whole[repeated] - penalty)

    def lengths(self, text: Ints) -> dict[int, int]:
        """For each token that followed an earlier occurrence of the text's end: the longest such end, where it is long
        enough to be penalised."""
        places = places_after(text, self.allowed_length)
        if not len(places):
            return {}
        end = text[: -LONGEST - 1 : -1]  # from the last token back
        longest = len(end)
        if self.sequence_breakers:
            breaks = (back for back, token_id in enumerate(end.tolist()) if token_id in self.sequence_breakers)
            longest = next(breaks, longest)
        before = places[:, None] - np.arange(1, longest + 1)  # (places, longest); negative: before the text
        equal = (text[before] == end[:longest]) & (before >= 0)
        lengths = np.logical_and.accumulate(equal, axis=1).sum(1)
        longest_of: dict[int, int] = {}
        for token_id, length in zip(text[places].tolist(), lengths.tolist(), strict=True):
            if length >= self.allowed_length and token_id not in self.sequence_breakers:
                longest_of[token_id] = max(length, longest_of.get(token_id, 0))
        return longest_of


REPEATS: tuple[type[Processor], ...] = (DRY, NoRepeatNgram)
"""In their default order."""


def places_after(text: Ints, count: int) -> Ints:
    """Where a text has what followed an earlier occurrence of its last `count` tokens."""
    if len(text) <= count:
        return text[:0]
    is_equal = np.ones(len(text) - count, np.bool_)
    for back in range(1, count + 1):
        is_equal &= text[count - back : len(text) - back] == text[-back]
    return is_equal.nonzero()[0] + count

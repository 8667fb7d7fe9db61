"""What can be counted in a text without a model. No torch here."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

WORD = re.compile(r"\w+(?:['’]\w+)*")


def words(text: str) -> list[str]:
    """The words in lower case; marks between them do not count."""
    return WORD.findall(text.lower())


def ngrams(items: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All runs of `size` items, in order."""
    return [tuple(items[start : start + size]) for start in range(len(items) - size + 1)]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, kept apart so that shares of several texts can be joined."""

    part: float
    whole: float


def distinct(text: str, size: int) -> Share:
    """How many of a text's n-grams of words differ (distinct-n, Li et al. 2016, arXiv 1510.03055)."""
    grams = ngrams(words(text), size)
    return Share(len(set(grams)), len(grams))


def repetition(text: str, size: int = 4) -> Share:
    """How many of a text's n-grams of words it has said before (seq-rep-n, Welleck et al. 2020, arXiv 1908.04319)."""
    differ = distinct(text, size)
    return Share(differ.whole - differ.part, differ.whole)


def unigram_entropy(text: str) -> Share:
    """Entropy in bits of the words' own frequencies in one text (Shannon 1948), over 1; over 0 without words."""
    counts = Counter(words(text)).values()
    total = sum(counts)
    return Share(-sum(count / total * math.log2(count / total) for count in counts), 1 if total else 0)


def agreement(token_ids: Sequence[int], reference: Sequence[int]) -> Share:
    """How many of the reference's places hold the same token."""
    return Share(sum(a == b for a, b in zip(token_ids, reference, strict=False)), len(reference))


def shared_length(token_ids: Sequence[int], reference: Sequence[int]) -> int:
    """How many tokens the two begin with in common."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(token_ids, reference, strict=False))))

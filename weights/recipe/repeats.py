"""Passages that are written again and again: what a model learns to copy from (induction, Olsson et al. 2022)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

WORDS = (3, 40)  # in a passage: the fewest and the most
TIMES = (2, 4)


def repeated_texts(documents: Iterable[str], seed: int = 0) -> Iterator[str]:
    """A text of each document: a passage of it, several times.

    Of every four passages one has its words in random order, and one is words from anywhere in the document: nothing
    but the first time tells what comes next.
    """
    draw = random.Random(seed)
    for document in documents:
        words = document.split()
        size = min(draw.randint(*WORDS), len(words))
        start = draw.randint(0, len(words) - size)
        passage = words[start : start + size]
        kind = draw.randrange(4)
        if kind == 1:
            draw.shuffle(passage)
        elif kind == 2:
            passage = draw.sample(words, size)
        yield draw.choice((" ", "\n")).join([" ".join(passage)] * draw.randint(*TIMES))

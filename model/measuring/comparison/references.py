"""Texts that no mode wrote, to read a metric by. No torch here."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tokenglass.model.measuring.comparison.passages import Passage
from tokenglass.model.text.tokenizer import Tokenizer

Reference = Callable[[Passage, int], str]  # a continuation of a passage's prompt, for a seed


def references(tokenizer: Tokenizer, passages: Sequence[Passage], tokens: int) -> dict[str, Reference]:
    """Continuations of at most `tokens` tokens: the true one, its words shuffled, and tokens drawn one by one.

    The unigram sampler draws each token with its frequency in all of the `passages`.
    """
    urn = [token for passage in passages for token in tokenizer.encode_bare(passage.prompt + passage.continuation)]

    def human(passage: Passage, _: int) -> str:
        return tokenizer.decode(tokenizer.encode_bare(passage.continuation)[:tokens])

    def shuffled(passage: Passage, seed: int) -> str:
        words = human(passage, seed).split()
        dice(seed, passage).shuffle(words)
        return " " + " ".join(words)

    def unigram(passage: Passage, seed: int) -> str:
        return tokenizer.decode(dice(seed, passage).choices(urn, k=tokens))

    return {"human": human, "shuffled words": shuffled, "unigram sampler": unigram}


def dice(seed: int, passage: Passage) -> random.Random:
    """Numbers of a passage's own."""
    return random.Random(f"{seed} {passage.prompt}")

"""What another form of a model's weights costs: perplexity and divergence on a text, against the model itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.engine.engine import Engine
from tokenglass.model.errors import ParameterError
from tokenglass.weights import FOLDER as WEIGHTS

WINDOW = 256  # positions read at once, each window without what was before it


@dataclass(frozen=True, slots=True)
class Quality:
    """How an engine does on a text beside a reference; sums over `tokens` predictions, in nats."""

    tokens: int = 0
    reference_nats: float = 0.0  # that the reference needs for the text: minus the sum of its logprobs
    nats: float = 0.0  # that the engine needs
    divergence: float = 0.0  # Kullback-Leibler, from the reference to the engine
    agreed: int = 0  # predictions whose most probable token is the reference's

    @property
    def reference_perplexity(self) -> float:
        """exp of the mean nats per token (Jelinek et al. 1977)."""
        return math.exp(self.reference_nats / self.tokens)

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats / self.tokens)

    @property
    def perplexity_ratio(self) -> float:
        """Over the reference's: 1.02 is 2 % worse."""
        return math.exp((self.nats - self.reference_nats) / self.tokens)

    @property
    def mean_kl(self) -> float:
        """Mean Kullback-Leibler divergence per prediction, in nats: the sum of p ln(p / q) over the vocabulary, p the
        reference's probability and q the engine's."""
        return self.divergence / self.tokens

    @property
    def agreement(self) -> float:
        """Share of the predictions whose most probable token is the reference's."""
        return self.agreed / self.tokens


def compare(reference: Engine, other: Engine, token_ids: Sequence[int], window: int = WINDOW) -> Iterator[Quality]:
    """The comparison so far, after each window of the text. Raises ParameterError where there is nothing to predict."""
    if len(token_ids) < 2:
        raise ParameterError("a text of at least two tokens is needed to measure on")
    window = min(window, reference.limit, other.limit)
    quality = Quality()
    starts = [*range(0, len(token_ids) - 1, window - 1), len(token_ids) - 1]
    for start, last in pairwise(starts):
        ids = list(token_ids[start : last + 1])
        p, q = (log_softmax(engine.forward([ids], None, last=None)[0][:-1]) for engine in (reference, other))
        places = np.arange(len(ids) - 1), np.array(ids[1:])
        quality = Quality(
            tokens=quality.tokens + len(ids) - 1,
            reference_nats=quality.reference_nats - float(p[places].sum()),
            nats=quality.nats - float(q[places].sum()),
            divergence=quality.divergence + float((np.exp(p) * (p - q)).sum()),
            agreed=quality.agreed + int((p.argmax(-1) == q.argmax(-1)).sum()),
        )
        yield quality


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural logarithms of the probabilities (..., vocab)."""
    below = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return below - np.log(np.exp(below).sum(-1, keepdims=True))


def held_out_text() -> str:
    """A passage that was written for this purpose, so that no model has learnt it: a story, and a plain account."""
    return (WEIGHTS / "held_out.txt").read_text(encoding="utf-8")

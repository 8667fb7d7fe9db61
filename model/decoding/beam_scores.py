"""How good each continuation of one text is, in log-probabilities."""

from __future__ import annotations

from itertools import islice

from tokenglass.model.engine.engine import Logits
from tokenglass.model.records.steps import Choice, Status
from tokenglass.model.sampling.chain import apply_chain
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.head import HEAD
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.sampling.scores import Scores


class Continuations:
    """The next tokens of one text, from the most probable down, after masks and processors.

    Raises NothingPossible where none is left, EngineError for logits that hold no distribution.
    """

    def __init__(self, sampler: Sampler, logits: Logits, context: Context, count: int):
        """At least `count` are put in order, if there are as many."""
        self._sampler = sampler
        self._raw = sampler.raw(logits)
        self._scores = scores = Scores(self._raw.logprobs(), context, max(HEAD, count, sampler.top))
        apply_chain(sampler.chain, scores)
        while len(scores.values) < count and not scores.is_complete:
            scores.widen()

    def best(self, count: int) -> list[tuple[int, float]]:
        """Token ids and log-probabilities."""
        pairs = zip(self._scores.token_ids.tolist(), self._scores.values.tolist(), strict=True)
        return list(islice(pairs, count))

    def choice(self, token_id: int, status: Status) -> Choice:
        """One of them told; nothing was drawn, so there are no final probabilities."""
        return self._sampler.record(self._raw, self._scores, token_id, status=status, has_probs=False)

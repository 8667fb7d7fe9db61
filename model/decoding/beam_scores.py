"""How good each continuation of one text is, in log-probabilities."""

from __future__ import annotations

from itertools import islice

import numpy as np

from tokenglass.model.engine.engine import Logits
from tokenglass.model.records.steps import Candidate, Choice, Status
from tokenglass.model.sampling.chain import apply_chain
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.head import HEAD
from tokenglass.model.sampling.sampler import Sampler, provenance
from tokenglass.model.sampling.scores import Scores


class Continuations:
    """The next tokens of one text, from the most probable down, after masks and processors.

    Raises NothingPossible where none is left, EngineError for logits that hold no distribution.
    """

    def __init__(self, sampler: Sampler, logits: Logits, context: Context, count: int):
        """At least `count` are put in order, if there are as many."""
        top = sampler.top
        self._piece = sampler.piece
        self._raw = sampler.raw(logits)
        self._position = context.position
        self._scores = scores = Scores(self._raw.logprobs(), context, max(HEAD, count, top))
        self._shown = scores.token_ids[:top]
        apply_chain(sampler.chain, scores)
        while len(scores.values) < count and not scores.is_complete:
            scores.widen()

    def best(self, count: int) -> list[tuple[int, float]]:
        """Token ids and log-probabilities."""
        pairs = zip(self._scores.token_ids.tolist(), self._scores.values.tolist(), strict=True)
        return list(islice(pairs, count))

    def choice(self, token_id: int, status: Status) -> Choice:
        """One of them told; nothing was drawn, so there are no final probabilities."""
        shown = self._shown if token_id in self._shown else np.append(self._shown, token_id)
        logprobs = self._raw.logprobs(shown).tolist()
        told = provenance(self._scores.changes, shown)
        return Choice(
            position=self._position,
            token_id=token_id,
            piece=self._piece(token_id),
            logprob=logprobs[shown.tolist().index(token_id)],
            prob=None,
            rank=self._raw.rank(token_id),
            entropy=self._raw.entropy,
            draw=None,
            candidates=tuple(
                Candidate(shown_id, self._piece(shown_id), logprob, None, cut, moved)
                for shown_id, logprob, (cut, moved) in zip(shown.tolist(), logprobs, told, strict=True)
            ),
            status=status,
        )

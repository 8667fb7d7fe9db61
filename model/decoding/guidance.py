"""The negative prompt beside the prompt: what the model would say there, to be guided away from."""

from __future__ import annotations

from collections.abc import Sequence as Several
from copy import copy

from tokenglass.model.decoding.request import Request, check_length
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.engine.engine import Engine, Logits


class Negative:
    """The same new tokens behind another prompt (Sanchez et al. 2023, arXiv 2306.17806).

    Raises PromptError where the negative prompt does not fit in the context.
    """

    def __init__(self, engine: Engine, request: Request):
        check_length(request.negative_ids, engine.limit)
        self._engine = engine
        self._request = request
        planned_length = min(len(request.negative_ids) + request.max_new_tokens, engine.limit)
        self._cache = engine.new_cache(planned_length=planned_length)

    def logits(self, sequence: Sequence) -> Logits:
        """Logits (vocab,) for the next token behind the negative prompt; only what is new is computed."""
        return self.rows([sequence.token_ids])[0]

    def rows(self, texts: Several[Several[int]]) -> Logits:
        """Logits (rows, vocab) for texts of one length, prompt included, each continuing what its row had."""
        prompt_length = len(self._request.prompt_ids)
        behind = [[*self._request.negative_ids, *text[prompt_length:]] for text in texts]
        for row, held in enumerate(behind):
            self._cache.keep_prefix(row, held[:-1])
        while (done := self._cache.lengths[0]) < len(behind[0]):
            end = done + self._request.prefill_chunk
            logits = self._engine.forward([ids[done:end] for ids in behind], self._cache)
        return logits[:, -1]

    def select(self, rows: Several[int]) -> None:
        """Go on with these rows, in this order."""
        self._cache.select(rows)

    def fork(self) -> Negative:
        """Another that has computed as much."""
        twin = copy(self)
        twin._cache = self._cache.clone()
        return twin


def room(engine: Engine, request: Request) -> int:
    """Positions that a text may reach, prompt included, so that it fits behind the negative prompt as well."""
    return engine.limit - max(0, len(request.negative_ids) - len(request.prompt_ids))

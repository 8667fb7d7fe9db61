"""The negative prompt beside the prompt: what the model would say there, to be guided away from."""

from __future__ import annotations

from collections.abc import Sequence as Several

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

    def rows(self, texts: Several[Several[int]]) -> list[Logits]:
        """Logits (vocab,) of each row, for its text, prompt included, which continues what the row had."""
        prompt_length = len(self._request.prompt_ids)
        behind = [[*self._request.negative_ids, *text[prompt_length:]] for text in texts]
        for row, held in enumerate(behind):
            self._cache.keep_prefix(row, held[:-1])
        logits: dict[int, Logits] = {}
        while self._cache.lengths != [len(ids) for ids in behind]:
            chunks = [(done, done + self._request.prefill_chunk) for done in self._cache.lengths]
            inputs = [ids[start:end] for ids, (start, end) in zip(behind, chunks, strict=True)]
            parts = enumerate(self._engine.forward(inputs, self._cache))
            logits |= {row: part[-1] for row, part in parts if len(part)}
        return [logits[row] for row in range(len(behind))]

    def select(self, rows: Several[int]) -> None:
        """Go on with these rows, in this order."""
        self._cache.select(rows)


def room(engine: Engine, request: Request) -> int:
    """Positions that a text may reach, prompt included, so that it fits behind the negative prompt as well."""
    return engine.limit - max(0, len(request.negative_ids) - len(request.prompt_ids))

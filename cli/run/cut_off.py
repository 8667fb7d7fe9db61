"""Whether a text fits its constraint where it ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tokenglass.model.records.steps import Finish, Record

if TYPE_CHECKING:
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.loaded_model import LoadedModel

ELSEWHERE = ("error", "interrupt")  # these have codes of their own


class FitWatch:
    """Follows the tokens of each text, and tries those that an end token did not end."""

    def __init__(self, loaded: LoadedModel, request: Request):
        self.num_cut_off = 0
        self._loaded = loaded
        self._request = request
        self._token_ids: dict[int, dict[int, int]] = {}  # of each sequence, by position

    @property
    def in_words(self) -> str:
        """What was cut off, and what to do."""
        texts = "the text" if self.num_cut_off == 1 else f"{self.num_cut_off} texts"
        assert self._request.constraint is not None
        most = self._request.max_new_tokens
        return f"{texts} ended before fitting {self._request.constraint.option}; try a larger -n than {most:,}"

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records."""
        for record in records:
            tokens = self._token_ids.setdefault(record.sequence, {})
            if isinstance(record, Finish):
                self.num_cut_off += record.reason not in ("eos", *ELSEWHERE) and not self._fits(tokens, record)
            else:
                tokens |= {choice.position: choice.token_id for choice in record.settled if choice.token_id is not None}
                for position in [place for place in tokens if place >= (record.rewound_to or len(tokens) + place)]:
                    del tokens[position]
            yield record

    def _fits(self, tokens: dict[int, int], finish: Finish) -> bool:
        if finish.score is not None:  # a beam's tokens are in the steps of others
            return False
        engine, request = self._loaded.engine, self._request
        assert request.constraint is not None
        state = request.constraint.begin(self._loaded.tokenizer, request.eos_token_ids, engine.vocab_size)
        for position in sorted(tokens):
            state.advance(tokens[position])
        return state.fits

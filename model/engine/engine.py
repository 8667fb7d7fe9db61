"""What decoding needs of a model. Integers go in, float32 numpy arrays come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.engine.cache import KVCache
from tokenglass.model.errors import PromptError
from tokenglass.model.sampling.raw import DrawEach, Measure, MeasureEach, MeasureRows
from tokenglass.model.sampling.routed_logits import Routes, route_logits

Ids = Sequence[Sequence[int]] | NDArray[np.int64]  # new ids of each row, which has its own number of them
Logits = NDArray[np.float32]  # (positions, vocab) of a row
PerRow = int | Sequence[int]  # one number for all rows, or one for each


class Engine(Protocol):
    """The one protocol that decoding talks to."""

    @property
    def limit(self) -> int:
        """Positions that fit in the context."""

    @property
    def vocab_size(self) -> int:
        """Logits per position, which are as many as there are token ids that can be computed from."""

    @property
    def measure(self) -> Measure:
        """The way from one position's logits to what a sampler asks of them."""

    @property
    def measure_each(self) -> MeasureEach:
        """The same for several positions at once; those that are better measured alone come back as they are."""

    @property
    def draw_each(self) -> DrawEach:
        """The tokens that drawers take from several positions' logits; None where one cannot tell."""

    @property
    def measure_rows(self) -> MeasureRows:
        """The way from several positions' logits to one token's numbers in each."""

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
        """An empty cache for `rows` sequences of at most `planned_length` positions (None: the limit).

        Some ropes choose their factors by that length; it is no bound.
        """

    def forward(
        self,
        token_ids: Ids,
        cache: KVCache | None,
        *,
        last: PerRow | None = 1,
        planned_length: int | None = None,
        block: PerRow = 0,
    ) -> list[Logits]:
        """Logits after the `last` ids of each row (None: after all of them), in its own array (last, vocab).

        With a cache, the ids continue its rows and are added to it, and the planned length is the row's; without
        one and without `planned_length` it is the number of ids. A row without ids takes no part. The last `block` ids
        of a row see each other. What a row gets does not depend on the others.
        Raises PromptError for an id without a row in the embedding: a tokenizer may have more tokens than the model.
        """


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rows of one pass bring: the new ids of each, and a number for each."""

    token_ids: list[list[int]]
    counts: list[int]  # of new ids
    outputs: list[int]  # how many of the last of them have their logits computed
    blocks: list[int]

    @staticmethod
    def of(token_ids: Ids, last: PerRow | None, block: PerRow, vocab_size: int) -> Rows:
        """Raises PromptError for an id beyond the vocabulary."""
        rows = [ids.tolist() if isinstance(ids, np.ndarray) else list(ids) for ids in token_ids]
        counts = [len(ids) for ids in rows]
        for ids in rows:
            check_ids(ids, vocab_size)
        outputs = counts if last is None else list(map(min, per_row(last, len(rows)), counts))
        return Rows(rows, counts, outputs, per_row(block, len(rows)))

    def flat_ids(self) -> NDArray[np.int64]:
        """The ids of all rows (positions,), one row behind the other."""
        return np.array(list(chain.from_iterable(self.token_ids)), np.int64)

    @property
    def output_columns(self) -> list[int]:
        """The positions, among those of all rows, that have their logits computed."""
        ends = zip(accumulate(self.counts), self.outputs, strict=True)
        return [column for end, count in ends for column in range(end - count, end)]

    def split(self, logits: Logits, routes: Sequence[Routes] | None = None) -> list[Logits]:
        """Each row's part of the logits (outputs of all rows, vocab), with the routes of as many where there are."""
        parts = [slice(end - count, end) for end, count in zip(accumulate(self.outputs), self.outputs, strict=True)]
        if routes is None:
            return [logits[part] for part in parts]
        return [route_logits(logits[part], routes[part]) for part in parts]


def per_row(number: PerRow, rows: int) -> list[int]:
    numbers = [number] * rows if isinstance(number, int) else list(number)
    if len(numbers) != rows:
        raise ValueError(f"{len(numbers)} numbers for {rows} rows")
    return numbers


def check_ids(token_ids: Sequence[int], rows: int) -> None:
    """Raises PromptError for a token id that has no row in the embedding."""
    highest = max(token_ids, default=0)
    if highest >= rows:
        raise PromptError(
            f"the text holds token {highest:,}, which the tokenizer has and the model has not (its embedding ends at "
            f"{rows - 1:,}); leave that token out"
        )

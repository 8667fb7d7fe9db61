"""What decoding needs of a model. Integers go in, float32 numpy arrays come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.engine.cache import KVCache
from tokenglass.model.errors import PromptError
from tokenglass.model.sampling.raw import Measure

Ids = Sequence[Sequence[int]] | NDArray[np.int64]  # (rows, length): rows of one pass have one length
Logits = NDArray[np.float32]  # (rows, length or 1, vocab)


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

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
        """An empty cache for `rows` sequences of at most `planned_length` positions (None: the limit).

        Some ropes choose their factors by that length; it is no bound.
        """

    def forward(
        self,
        token_ids: Ids,
        cache: KVCache | None,
        *,
        last: bool = True,
        planned_length: int | None = None,
        block: int = 0,
    ) -> Logits:
        """Logits (rows, 1, vocab) after the last of `token_ids` (rows, length), or of all of them.

        With a cache, the ids continue its rows and are added to it, and the planned length is the cache's; without
        one and without `planned_length` it is the number of ids. The last `block` ids see each other.
        Raises PromptError for an id without a row in the embedding: a tokenizer may have more tokens than the model.
        """


def check_ids(token_ids: NDArray[np.int64], rows: int) -> None:
    """Raises PromptError for a token id that has no row in the embedding."""
    highest = int(token_ids.max())
    if highest >= rows:
        raise PromptError(
            f"the text holds token {highest:,}, which the tokenizer has and the model has not (its embedding ends at "
            f"{rows - 1:,}); leave that token out"
        )

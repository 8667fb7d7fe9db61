"""What each processor did, so that a candidate can say what moved it and what cut it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Logits = NDArray[np.floating[Any]]  # float32 or float64, as the model gives them


class Change(Protocol):
    """One processor's doing."""

    @property
    def name(self) -> str:
        """The processor's or the mask's."""

    def of(self, token_ids: Ints) -> list[float]:
        """Change of the log score of each of these tokens; minus infinity for one that was cut."""


@dataclass(frozen=True, slots=True)
class Edited:
    """Some tokens got other scores; one that is named several times has the same each time."""

    name: str
    token_ids: Ints
    before: Floats
    after: Floats
    watched: Ints  # tokens whose change is known beforehand, because looking it up takes longer
    change: list[float]

    def of(self, token_ids: Ints) -> list[float]:
        if token_ids is self.watched:
            return self.change
        places = (token_ids[:, None] == self.token_ids).argmax(1)
        before = self.before[places]
        is_moved = (self.token_ids[places] == token_ids) & (before > -math.inf)  # what is impossible cannot move
        return np.subtract(self.after[places], before, out=np.zeros(len(token_ids)), where=is_moved).tolist()


@dataclass(frozen=True, slots=True)
class Kept:
    """All but some tokens were cut."""

    name: str
    token_ids: Ints

    def of(self, token_ids: Ints) -> list[float]:
        is_kept = (token_ids[:, None] == self.token_ids).any(1)
        return [0.0 if stays else -math.inf for stays in is_kept.tolist()]


@dataclass(frozen=True, slots=True)
class Allowed:
    """All but some tokens were cut, told over the whole vocabulary."""

    name: str
    allowed: NDArray[np.bool_]

    def of(self, token_ids: Ints) -> list[float]:
        return np.where(self.allowed[token_ids], 0.0, -math.inf).tolist()


@dataclass(frozen=True, slots=True)
class Reweighed:
    """Every token got another score."""

    name: str
    change: Floats  # (vocab,)

    def of(self, token_ids: Ints) -> list[float]:
        return self.change[token_ids].tolist()

"""Log scores on their way through the chain, and what was done to them."""

from __future__ import annotations

import math
import sys

import numpy as np

from tokenglass.model.errors import EngineError, NothingPossible
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.head import HEAD, Head
from tokenglass.model.sampling.provenance import Allowed, Change, Edited, Floats, Ints, Kept, Reweighed
from tokenglass.model.sampling.raw import Raw, exponential_sums

UNDERFLOW = math.log(sys.float_info.min)  # below it an exponential has no digits of its own


class Scores:
    """Scores of the tokens that are still possible, natural logarithms up to a constant.

    Truncations look at the head alone: `token_ids` and `values`, sorted from the most probable down, ties by token
    id. Every token outside it has less than its last value. `is_complete` says that nothing is outside; a truncation
    that the head does not decide asks for more of it with `widen`.
    """

    __slots__ = (
        "_head",
        "_mass",
        "_pending",
        "_raw",
        "_text",
        "_touched",
        "_weights",
        "_whole",
        "changes",
        "context",
        "origin",
        "size",
        "watched",
    )

    def __init__(self, first: Floats | Raw, context: Context, count: int = 0):
        """All scores (vocab,), which are written to, or a raw distribution, whose logits below the peak they are.

        The changes of the `count` most probable tokens are watched; a raw distribution's head has as many.
        """
        self.context = context
        self.changes: list[Change] = []
        self.origin = 0.0  # what was subtracted from all scores, as it stands after the divisions since
        self._raw: Raw | None = None  # the whole is made of it where somebody asks
        self._whole: Floats | None = None  # else None: nothing outside the head is possible
        self._pending: tuple[float, float] | None = None  # what is still to be subtracted and divided by
        self._touched: list[Ints] = []  # tokens that got other scores since the head was put in order
        self._text: Ints | None = None
        self._weights: Floats | None = None
        self._mass: float | None
        if isinstance(first, Raw):
            self.size, self.origin, self._raw = len(first.logits), first.peak, first
            self._set_head(first.head)
            self._mass = first.mass
        else:
            self.size, self._whole = len(first), first
            self._sort(max(HEAD, count))
        self.watched = self.token_ids[:count]

    @property
    def text(self) -> Ints:
        """The context's token ids as an array."""
        if self._text is None:
            array = self.context.array
            self._text = np.array(self.context.token_ids, np.int64) if array is None else array
        return self._text

    @property
    def head(self) -> Head:
        """The most probable tokens, in order."""
        if self._touched:
            self._settle()
        return self._head

    @property
    def token_ids(self) -> Ints:
        """Of the head."""
        return self.head.token_ids

    @property
    def values(self) -> Floats:
        """Of the head, sorted downwards."""
        return self.head.values

    @property
    def is_complete(self) -> bool:
        return self.head.is_complete

    @property
    def peak(self) -> float:
        """The highest score."""
        return float(self.head.values[0])

    @property
    def whole(self) -> Floats:
        """All scores by token id (vocab,), minus infinity for what is not possible. Not to be written to."""
        if self._raw is not None:
            self._whole, self._raw = self._raw.below(), None
        elif self._whole is None:
            self._whole = np.full(self.size, -math.inf)
            self._whole[self._head.token_ids] = self._head.values
        if self._pending is not None:
            shift, divisor = self._pending
            self._whole -= shift
            self._whole, self._pending = divide(self._whole, divisor), None
        return self._whole

    @property
    def possible(self) -> Floats:
        """All scores in any order, minus infinity left out."""
        scores = self.values if self.is_complete else self.whole
        return scores if scores.min() > -math.inf else scores[scores > -math.inf]

    @property
    def weights(self) -> Floats:
        """exp(score - peak) of the head's tokens."""
        head = self.head
        if self._weights is None:
            self._weights = np.exp(head.values - head.values[0])
        return self._weights

    @property
    def mass(self) -> float:
        """Sum of exp(score - peak) over all tokens."""
        head, peak = self.head, self.peak
        if self._mass is None and head.is_complete:
            self._mass = float(self.weights.sum())
        elif self._mass is None and self._raw is not None and self._pending is not None:
            self._mass = self._raw.mass_at(self._pending[1])  # the raw peak is 0, and nothing is subtracted
        elif self._mass is None:
            self._mass = float(np.exp(self.whole - peak if peak else self.whole).sum())
        return self._mass

    @property
    def entropy(self) -> float:
        """Over all tokens, in nats."""
        return math.log(self.mass) - exponential_sums(self.possible - self.peak)[1] / self.mass

    @property
    def probs(self) -> Floats:
        """Probabilities of the head's tokens among all tokens."""
        return self.weights / self.mass

    def widen(self) -> None:
        """Make an incomplete head several times as long."""
        mass = self._mass
        self._sort(8 * len(self.values))
        self._mass = mass

    def edit(self, name: str, token_ids: Ints, values: Floats) -> None:
        """Give some tokens other scores; one that is named several times gets the same each time."""
        if not len(token_ids):
            return
        whole = self.whole
        before, was = whole[token_ids], whole[self.watched].tolist()
        whole[token_ids] = values
        now = whole[self.watched].tolist()
        change = [new - old if old > -math.inf else 0.0 for old, new in zip(was, now, strict=True)]
        self.changes.append(Edited(name, token_ids, before, values, self.watched, change))
        self._touched.append(token_ids)

    def reweigh(self, name: str, whole: Floats, change: Floats) -> None:
        """Give every token another score, from which nothing is subtracted."""
        self.changes.append(Reweighed(name, change))
        self._raw, self._whole, self._touched, self.origin = None, whole, [], 0.0
        self._sort()

    def mask(self, mask: Mask) -> None:
        """Cut what a mask does not allow; rows of the vocabulary beyond the tokenizer's are not allowed."""
        if mask.allowed is not None:
            allowed = np.zeros(self.size, np.bool_)
            allowed[: len(mask.allowed)] = mask.allowed[: self.size]
            self._allow(mask.name, allowed)
        self.remove(mask.name, np.array([k for k in mask.removed if k < self.size], np.int64))

    def remove(self, name: str, token_ids: Ints) -> None:
        """Cut some tokens. Raises NothingPossible where no other is left."""
        self.edit(name, token_ids, np.full(len(token_ids), -math.inf))
        self._settle()

    def remove_below(self, name: str, least: float) -> None:
        """Cut all scores below `least`, the peak not."""
        head, least = self.head, min(least, self.peak)
        if head.is_complete or head.values[-1] <= least:
            self.keep(name, slice(int((-head.values).searchsorted(-least, side="right"))))
        else:
            self._allow(name, self.whole >= least)

    def divide(self, divisor: float) -> None:
        """Divide what each score lies below the peak, so that nothing overflows. The order stays."""
        head, peak = self.head, self.peak
        if head.is_complete:
            self._whole = self._raw = None
        else:
            if self._pending is not None:
                self._whole = self.whole
            self._pending = (peak, divisor)
        self._set_head(Head(head.token_ids, divide(head.values - peak, divisor), head.is_complete))
        self.origin = (self.origin + peak) / divisor

    def mark_underflow(self, name: str, divisor: float) -> None:
        """Say of watched tokens that a division will leave them no probability. They keep their scores, so that what
        comes after sees the same deviation however low the divisor is."""
        watched, peak = self.watched, self.peak
        if not len(watched) or (self._raw is not None and self.values[len(watched) - 1] - peak >= UNDERFLOW * divisor):
            return  # the least of them keeps its probability
        before = self.values[: len(watched)] if self._raw is not None else self._values_of(watched)
        is_lost = (before - peak < UNDERFLOW * divisor) & (before > -math.inf)
        if is_lost.any():
            change = np.where(is_lost, -math.inf, 0.0).tolist()
            lost = before[is_lost]
            self.changes.append(Edited(name, watched[is_lost], lost, np.full_like(lost, -math.inf), watched, change))

    def _values_of(self, token_ids: Ints) -> Floats:
        """The scores of some tokens, without those of all."""
        if self._pending is None or self._whole is None:
            return self.whole[token_ids]
        shift, divisor = self._pending
        return divide(self._whole[token_ids] - shift, divisor)

    def keep(self, name: str, places: slice | Ints) -> None:
        """Cut everything but these places of the head."""
        head = self.head
        token_ids = head.token_ids[places]
        if head.is_complete and len(token_ids) == len(head.token_ids):
            return
        self.changes.append(Kept(name, token_ids))
        self._whole = self._pending = self._raw = None
        weights = self._weights
        self._set_head(Head(token_ids, head.values[places], is_complete=True))
        if weights is not None and self._head.values[0] == head.values[0]:
            self._weights = weights[places]

    def _allow(self, name: str, allowed: np.ndarray) -> None:
        """Cut all but the tokens where `allowed` (vocab,) is true."""
        self.changes.append(Allowed(name, allowed))
        np.copyto(self.whole, -math.inf, where=~allowed)
        self._touched.append(self._head.token_ids[:0])
        self._settle()

    def _settle(self) -> None:
        """Put what was touched in its place. Raises NothingPossible, EngineError."""
        if self._touched:
            head, self._touched = self._head.after(self.whole, self._touched), []
            if len(head.values):
                self._set_head(head)
            else:
                self._sort()

    def _sort(self, count: int = HEAD) -> None:
        """Sort at least the `count` most probable tokens. Raises NothingPossible, EngineError."""
        head = Head.of(self.whole, count)
        if not len(head.values):
            last_cut = self.changes[-1].name if self.changes else "the model"
            raise NothingPossible(f"nothing is left to choose from: {last_cut} forbids what was still possible")
        self._set_head(head)

    def _set_head(self, head: Head) -> None:
        """Raises EngineError."""
        if not math.isfinite(head.values[0]):
            raise EngineError("a processor made a score infinite; use smaller numbers for penalties and biases")
        self._head = head
        self._mass = self._weights = None


def divide(below: Floats, divisor: float) -> Floats:
    """In place; what is too low for a number becomes minus infinity."""
    with np.errstate(over="ignore"):
        below /= divisor
    return below

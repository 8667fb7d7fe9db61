"""Log scores on their way through the chain, and what was done to them."""

from __future__ import annotations

import math

import numpy as np

from model.errors import EngineError, NothingPossible
from model.sampling.context import Context, Mask
from model.sampling.provenance import Above, Allowed, Change, Edited, Floats, Ints, Kept, Reweighed

HEAD = 128  # tokens that are sorted at first


class Scores:
    """Scores of the tokens that are still possible, natural logarithms up to a constant.

    Truncations look at the head alone: `token_ids` and `values`, sorted from the most probable down, ties by token
    id. Every token outside it has less than its last value. `is_complete` says that nothing is outside; a truncation
    that the head does not decide asks for more of it with `widen`.
    """

    __slots__ = (
        "_is_shared",
        "_mass",
        "_pending",
        "_probs",
        "_text",
        "_token_ids",
        "_values",
        "_whole",
        "changes",
        "context",
        "is_complete",
        "origin",
        "size",
        "watched",
    )

    def __init__(self, whole: Floats, context: Context, count: int = 0):
        """`whole` (vocab,) is never written to; the changes of the `count` most probable tokens are watched."""
        self.context = context
        self.size = len(whole)
        self.changes: list[Change] = []
        self._whole: Floats | None = whole
        self._token_ids: Ints | None = None
        self._values: Floats | None = None
        self._is_shared = True
        self._pending: tuple[float, float] | None = None  # what is still to be subtracted and divided by
        self._mass: float | None = None
        self._probs: Floats | None = None
        self._text: Ints | None = None
        self.origin = 0.0  # what was subtracted from all scores, as it stands after the divisions since
        self._sort(max(HEAD, count))
        self.watched = self.token_ids[:count]

    @property
    def text(self) -> Ints:
        """The context's token ids as an array."""
        if self._text is None:
            self._text = np.array(self.context.token_ids, np.int64)
        return self._text

    @property
    def token_ids(self) -> Ints:
        """Of the head."""
        if self._token_ids is None:
            self._sort()
        assert self._token_ids is not None
        return self._token_ids

    @property
    def values(self) -> Floats:
        """Of the head, sorted downwards."""
        if self._values is None:
            self._sort()
        assert self._values is not None
        return self._values

    @property
    def peak(self) -> float:
        """The highest score."""
        return float(self.values[0])

    @property
    def whole(self) -> Floats:
        """All scores by token id (vocab,), minus infinity for what is not possible. Not to be written to."""
        if self._whole is None:
            self._whole = np.full(self.size, -math.inf)
            self._whole[self.token_ids] = self.values
            self._is_shared = False
        if self._pending is not None:
            shift, divisor = self._pending
            self._whole = divided(self._whole - shift, divisor)
            self._is_shared, self._pending = False, None
        return self._whole

    @property
    def below(self) -> Floats:
        """All scores relative to the peak, in any order."""
        values, peak = self.values if self.is_complete else self.whole, self.peak
        return values - peak if peak else values

    @property
    def mass(self) -> float:
        """Sum of exp(score - peak) over all tokens."""
        if self._mass is None:
            self._mass = float(np.exp(self.below).sum())
        return self._mass

    @property
    def probs(self) -> Floats:
        """Probabilities of the head's tokens among all tokens."""
        if self._probs is None:
            self._probs = np.exp(self.values - self.peak) / self.mass
        return self._probs

    def widen(self) -> None:
        """Make an incomplete head several times as long."""
        mass = self._mass
        self._sort(8 * len(self.values))
        self._mass, self._probs = mass, None

    def edit(self, name: str, token_ids: Ints, values: Floats) -> None:
        """Give some tokens other scores; one that is named several times gets the same each time."""
        if not len(token_ids):
            return
        whole = self.whole
        if self._is_shared:
            whole = whole.copy()
            self._is_shared = False
        before, was = whole[token_ids], whole[self.watched].tolist()
        whole[token_ids] = values
        now = whole[self.watched].tolist()
        change = [new - old if old > -math.inf else 0.0 for old, new in zip(was, now, strict=True)]
        self.changes.append(Edited(name, token_ids, before, values, self.watched, change))
        self._whole = whole
        self._forget_head()

    def reweigh(self, name: str, whole: Floats, change: Floats) -> None:
        """Give every token another score."""
        self.changes.append(Reweighed(name, change))
        self._whole, self._is_shared = whole, False
        self._forget_head()

    def mask(self, mask: Mask) -> None:
        """Cut what a mask does not allow; rows of the vocabulary beyond the tokenizer's are not allowed."""
        if mask.allowed is not None:
            allowed = np.zeros(self.size, np.bool_)
            allowed[: len(mask.allowed)] = mask.allowed[: self.size]
            self.changes.append(Allowed(mask.name, allowed))
            self._whole, self._is_shared = np.where(allowed, self.whole, -math.inf), False
            self._forget_head()
        self.remove(mask.name, np.array([k for k in mask.removed if k < self.size], np.int64))

    def remove(self, name: str, token_ids: Ints) -> None:
        """Cut some tokens."""
        self.edit(name, token_ids, np.full(len(token_ids), -math.inf))

    def remove_below(self, name: str, least: float) -> None:
        """Cut all scores below `least`, the peak not."""
        least = min(least, self.peak)
        if self.is_complete or self.values[-1] <= least:
            self.keep(name, slice(int((-self.values).searchsorted(-least, side="right"))))
            return
        before = self.whole
        self.changes.append(Above(name, before, least))
        self._whole, self._is_shared = np.where(before >= least, before, -math.inf), False
        self._mass = self._probs = None

    def divide(self, divisor: float) -> None:
        """Divide what each score lies below the peak, so that nothing overflows. The order stays."""
        peak = self.peak
        self._values = divided(self.values - peak, divisor)
        if self.is_complete:
            self._whole = None
        else:
            self._whole, self._pending = self.whole, (peak, divisor)
        self.origin = divided(np.array([self.origin + peak]), divisor).item()
        self._mass = self._probs = None

    def keep(self, name: str, kept: slice | Ints) -> None:
        """Cut everything but these places of the head."""
        self._token_ids, self._values = self.token_ids[kept], self.values[kept]
        self.changes.append(Kept(name, self._token_ids))
        self._whole = self._pending = self._mass = self._probs = None
        self.is_complete = True

    def _forget_head(self) -> None:
        self._token_ids = self._values = self._mass = self._probs = None
        self.is_complete = False

    def _sort(self, count: int = HEAD) -> None:
        """Sort at least the `count` most probable tokens. Raises NothingPossible, EngineError."""
        whole = self.whole
        token_ids, self.is_complete = most_probable(whole, count)
        if not len(token_ids):
            raise NothingPossible(f"nothing is left to choose from: {self._last_cut()} forbids what was still possible")
        values = whole[token_ids]
        order = np.argsort(-values, kind="stable")
        self._token_ids, self._values = token_ids[order], values[order]
        if not math.isfinite(self.peak):
            raise EngineError("a processor made a score infinite; use smaller numbers for penalties and biases")

    def _last_cut(self) -> str:
        """Who removed the last token."""
        left = np.arange(self.size)
        for change in self.changes:
            left = left[np.array(change.of(left)) > -math.inf]
            if not len(left):
                return change.name
        return "the model"


def divided(below: Floats, divisor: float) -> Floats:
    """In place; what is too low for a number becomes minus infinity."""
    with np.errstate(over="ignore"):
        below /= divisor
    return below


def most_probable(whole: Floats, count: int) -> tuple[Ints, bool]:
    """Ids, in order, of the `count` most probable tokens and of some more; and whether these are all possible ones.

    The `count`-th largest maximum of as many disjoint groups is a floor that at least `count` tokens reach: two
    passes, where a partition of the whole would take ten times as long.
    """
    size = len(whole)
    groups = min(8 * count, size // 4)
    if groups <= count:
        token_ids = np.flatnonzero(whole > -math.inf)
        return token_ids, True
    maxima = whole[: size // groups * groups].reshape(-1, groups).max(0)
    floor = np.partition(maxima, groups - count)[groups - count]
    if floor == -math.inf:
        return np.flatnonzero(whole > -math.inf), True
    token_ids = np.flatnonzero(whole >= floor)
    return token_ids, len(token_ids) == size

"""The most probable tokens in order: what truncations look at, so that nothing sorts a whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenglass.model.sampling.provenance import Floats, Ints

HEAD = 128  # tokens that are sorted at first
LONG = 256  # tokens of a head that is not sorted again when a few change


@dataclass(frozen=True, slots=True)
class Head:
    """Tokens sorted from the most probable down, ties by token id; every token outside has less than the last value.

    `is_complete` says that nothing outside is possible.
    """

    token_ids: Ints
    values: Floats
    is_complete: bool

    @staticmethod
    def of(whole: Floats, count: int) -> Head:
        """At least the `count` most probable of all tokens (vocab,); empty where none is possible."""
        token_ids, is_complete = most_probable(whole, count)
        return Head(*in_order(token_ids, whole[token_ids]), is_complete)

    def after(self, whole: Floats, touched: Sequence[Ints]) -> Head:
        """The head once the tokens `touched` have other scores, which `whole` (vocab,) holds; any may be named twice.
        Those that became impossible need not be named.

        What was outside and is not touched stays below the last value of before, and what falls below it goes outside.
        It is empty where everything falls.
        """
        if len(self.token_ids) > LONG:
            return self._merge(whole, np.unique(np.concatenate(touched)))
        token_ids = np.concatenate((self.token_ids, *touched))
        values = whole[token_ids]
        is_in = values > -math.inf if self.is_complete else values >= self.values[-1]
        token_ids, values = in_order(token_ids[is_in], values[is_in])
        is_first = np.ones(len(token_ids), np.bool_)
        np.not_equal(token_ids[1:], token_ids[:-1], out=is_first[1:])  # in order, the same token stands side by side
        return Head(token_ids[is_first], values[is_first], self.is_complete)

    def _merge(self, whole: Floats, touched: Ints) -> Head:
        """The same, where sorting all would take longer than putting the touched tokens (each once) in their places."""
        values = whole[touched]
        is_in = values > -math.inf if self.is_complete else values >= self.values[-1]
        new, values = in_order(touched[is_in], values[is_in])
        stays = ~np.isin(self.token_ids, touched) & (whole[self.token_ids] > -math.inf)
        token_ids, falling = self.token_ids[stays], -self.values[stays]
        places = falling.searchsorted(-values)
        ends = falling.searchsorted(-values, side="right")
        for tied in (places < ends).nonzero()[0]:
            equals = token_ids[places[tied] : ends[tied]]
            places[tied] += equals.searchsorted(new[tied])
        return Head(np.insert(token_ids, places, new), np.insert(-falling, places, values), self.is_complete)


def in_order(token_ids: Ints, values: Floats) -> tuple[Ints, Floats]:
    """From the highest value down, ties by token id."""
    order = np.lexsort((token_ids, -values))
    return token_ids[order], values[order]


def most_probable(whole: Floats, count: int) -> tuple[Ints, bool]:
    """Ids, in order, of the `count` most probable tokens and of some more; and whether these are all possible ones.

    The `count`-th largest maximum of as many disjoint groups is a floor that at least `count` tokens reach: two
    passes, where a partition of the whole would take ten times as long.
    """
    size = len(whole)
    groups = min(8 * count, size // 4)
    if groups <= count:
        return np.flatnonzero(whole > -math.inf), True
    maxima = whole[: size // groups * groups].reshape(-1, groups).max(0)
    maxima.partition(groups - count)
    floor = maxima[groups - count]
    if floor == -math.inf:
        return np.flatnonzero(whole > -math.inf), True
    token_ids = (whole >= floor).nonzero()[0]
    return token_ids, len(token_ids) == size

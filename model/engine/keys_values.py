"""The state of layers that keep vectors of each position, as attention does its keys and values: those of one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenglass.model.config.config import SLACK, ModelConfig
from tokenglass.model.config.layer_states import LayerState, RecurrentState

FIRST_ALLOCATION = 64  # positions

Array = Any  # of numpy or a tensor: both are cut, copied and indexed alike


@dataclass(frozen=True, slots=True)
class Storage:
    """How an engine keeps vectors: `zeros` makes an array of a shape. `more` numbers of it stand behind each vector.

    At multiples of `chunk` positions an engine can read on in another array; None: a row has to be one array.
    """

    zeros: Callable[[tuple[int, ...]], Array]
    more: int = 0
    chunk: int | None = None
    floats: Callable[[tuple[int, ...]], Array] = lambda shape: np.zeros(shape, np.float32)  # what has to be exact


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """The layers that keep the same of the same positions: of all of them, or of the last ones and some slack."""

    layers: tuple[int, ...]
    state: LayerState | RecurrentState


def layer_groups(config: ModelConfig) -> tuple[LayerGroup, ...]:
    """The layers by what they keep, in the order in which the first of each stands."""
    layers: dict[LayerState | RecurrentState, list[int]] = {}
    for layer, state in config.layer_states.items():
        layers.setdefault(state, []).append(layer)
    return tuple(LayerGroup(tuple(those), state) for state, those in layers.items())


def layer_places(groups: Sequence[LayerGroup]) -> dict[int, tuple[int, int]]:
    """The group of each layer, and its place in it."""
    return {layer: (number, place) for number, group in enumerate(groups) for place, layer in enumerate(group.layers)}


@dataclass(frozen=True, slots=True)
class Cut:
    """A stretch of a row's vectors, (layers * arrays, heads, count, vector), from position `start` on."""

    start: int
    array: Array

    @property
    def end(self) -> int:
        return self.start + int(self.array.shape[2])

    def between(self, start: int, end: int) -> Array:
        """The positions start .. end - 1."""
        return self.array[:, :, start - self.start : end - self.start]


class KeysValues:
    """`array` (layers * arrays, heads, slots, vector): of attention the keys and the values of each layer in turn.

    A vector in int8 has the bytes of its scale behind its numbers.

    `start` is the first position that is held: a sliding window lets go of its oldest positions when it and its slack
    are full. Storage doubles as it fills, up to `limit` positions. `length` is everywhere the number of positions that
    the row has.

    Rows that begin alike share whole chunks: `shared` are stretches, one behind the other, that lie in the arrays of
    other rows, and slot 0 of `array` is the position behind them. The positions of `array` below `frozen` are those
    that others read: they are never written again, and a row that goes back behind them goes on in a new array.
    """

    def __init__(self, state: LayerState, layers: int, limit: int, storage: Storage):
        self.name, self.window = state.name, state.window
        self.start = self.frozen = 0
        self.shared: tuple[Cut, ...] = ()
        self.array = storage.zeros((state.arrays * layers, state.heads, 0, state.size + storage.more))
        self._arrays = state.arrays
        layers, heads, _, vector = self.array.shape
        self.bytes_per_token = int(layers * heads * vector * self.array.itemsize)
        self._limit = limit
        self._zeros = storage.zeros
        self._chunk = storage.chunk

    @property
    def pieces(self) -> tuple[Cut, ...]:
        """All storage that the row reads, in the order of its positions; the last is its own."""
        return *self.shared, Cut(self._own_start, self.array)

    @property
    def slots(self) -> int:
        return sum(int(piece.array.shape[2]) for piece in self.pieces)

    @property
    def nbytes(self) -> int:
        """Of all that the row reads: what several share counts in each."""
        return self.bytes_per_token * self.slots

    def reserve(self, length: int, count: int) -> None:
        """Make room for `count` more positions: evict where the window is full, allocate where needed."""
        own_start, own = self._own_start, int(self.array.shape[2])
        if length + count - own_start <= own and length >= self.frozen:
            return
        start, most = own_start, self._most_slots
        if self.window is not None and length + count - start > most:
            start = max(start, length - (self.window - 1 + SLACK))
        doubled = own if length < self.frozen else 2 * own
        slots = max(length + count - start, min(most, max(doubled, FIRST_ALLOCATION)))
        self.array = self._gather(start, length, slots)
        self.start += start - own_start
        self.frozen = 0

    def layer(self, place: int) -> Array:
        """What one layer keeps (arrays, heads, slots, vector)."""
        begin, end = place * self._arrays, (place + 1) * self._arrays
        first, *others = (piece.array[begin:end] for piece in self.pieces)
        return np.concatenate((first, *others), axis=2) if others else first

    @property
    def blank(self) -> Array:
        """An array like those that are cut off."""
        return self.array

    def nbytes_used(self, length: int) -> int:
        return self.bytes_per_token * (length - self.start)

    def cut_shape(self, count: int) -> tuple[int, ...]:
        """Of what is cut off with so many positions."""
        layers, heads, _, vector = self.array.shape
        return layers, heads, count, vector

    def advance(self, length: int) -> None:
        """A pass has written up to `length`: nothing is to be done."""

    def reach(self, length: int) -> int:
        """The last position up to `length` to which the row can go back: there, or 0 where what that one needs is
        gone."""
        return length if self.window is None or self.start <= max(0, length - self.window + 1) else 0

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on. Storage stays, but for what is shared and has them."""
        if length == 0:
            self.start = 0
        if length < self._own_start:
            twin = self.prefix(length)
            self.shared, self.array, self.frozen = twin.shared, twin.array, 0

    def cut(self, start: int, length: int) -> Cut:
        """A copy of the positions from `start` on, as far as they are there."""
        start = max(start, self.start)
        return Cut(start, self._gather(start, length, length - start))

    def put(self, length: int, count: int, cut: Cut) -> None:
        """Take the last of `count` positions behind `length` from a cut. One with a gap before it makes what is there
        already useless."""
        if cut.start > length:
            self.start = cut.start
        self.reserve(length, count)
        Cut(self._own_start, self.array).between(cut.start, length + count)[:] = cut.array

    def prefix(self, length: int) -> KeysValues:
        """Another that holds the first `length` positions, as far as they are there, with room for some more. What is
        whole chunks of them is shared from now on, the rest copied."""
        twin, end = copy(self), self._shared_end(length)
        if length == 0:
            twin.start = 0
        twin.shared = tuple(
            Cut(piece.start, piece.between(piece.start, min(piece.end, end)))
            for piece in self.pieces
            if piece.start < end
        )
        if end > self._own_start:
            self.frozen = max(self.frozen, end)
        start = twin._own_start
        twin.array, twin.frozen = self._gather(start, length, twin._slots_for(length - start)), 0
        return twin

    def nbytes_of_copy(self, length: int) -> int:
        """What `prefix` takes."""
        return self.bytes_per_token * self._slots_for(length - max(self.start, self._shared_end(length)))

    def _slots_for(self, count: int) -> int:
        """Of storage that holds so many positions and has room for more, where there may be more."""
        return max(count, growth(count + 1, self._most_slots)[1])

    @property
    def _most_slots(self) -> int:
        return self._limit - self._own_start if self.window is None else min(self._limit, self.window + 2 * SLACK)

    def _shared_end(self, length: int) -> int:
        """How many of the first `length` positions another row can read where they lie."""
        return length // self._chunk * self._chunk if self._chunk and self.window is None else 0

    @property
    def _own_start(self) -> int:
        """The position in slot 0 of `array`."""
        return self.shared[-1].end if self.shared else self.start

    def _gather(self, start: int, end: int, slots: int) -> Array:
        """The positions start .. end - 1 in new storage."""
        layers, heads, _, vector = self.array.shape
        array = self._zeros((layers, heads, slots, vector))
        for piece in self.pieces:
            low, high = max(start, piece.start), min(end, piece.end)
            if low < high:
                array[:, :, low - start : high - start] = piece.between(low, high)
        return array


def growth(length: int, most: int) -> tuple[int, int]:
    """The last two sizes of storage that doubles until it holds `length` positions or `most`."""
    before, final = 0, min(FIRST_ALLOCATION, most)
    while final < min(length, most):
        before, final = final, min(2 * final, most)
    return before, final

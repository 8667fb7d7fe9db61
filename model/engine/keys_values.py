"""The state of attention: the keys and values that layers of one kind keep of one row's positions."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

from tokenglass.model.config.config import SLACK, ModelConfig

FIRST_ALLOCATION = 64  # positions

Array = Any  # of numpy or a tensor: both are cut, copied and indexed alike


@dataclass(frozen=True, slots=True)
class Storage:
    """How an engine keeps keys and values: `zeros` makes an array of a shape, whose last axis has `vector` numbers."""

    zeros: Callable[[tuple[int, ...]], Array]
    vector: int


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """The layers that keep the same positions: all of them, or the last `window` and some slack."""

    layers: tuple[int, ...]
    window: int | None


def layer_groups(config: ModelConfig) -> tuple[LayerGroup, ...]:
    """The layers without a window, and those with one."""
    windows = [kind.window for kind in config.layers]
    groups = (
        LayerGroup(tuple(layer for layer, kind in enumerate(windows) if (kind is not None) == slides), window)
        for slides, window in ((False, None), (True, config.window))
    )
    return tuple(group for group in groups if group.layers)


@dataclass(frozen=True, slots=True)
class Cut:
    """A stretch of a row's keys and values, (2 * layers, kv_heads, count, vector), from position `start` on."""

    start: int
    array: Array


class KeysValues:
    """`array` (2 * layers, kv_heads, slots, vector): the keys and the values of each layer in turn.

    A vector has head_dim numbers, and in int8 the bytes of its scale behind them.

    Slot 0 is position `start`: a sliding window lets go of its oldest positions when it and its slack are full. Storage
    doubles as it fills, up to `limit` positions. `length` is everywhere the number of positions that the row has.
    """

    def __init__(self, config: ModelConfig, group: LayerGroup, limit: int, storage: Storage):
        self.window = group.window
        self.start = 0
        self.array = storage.zeros((2 * len(group.layers), config.num_kv_heads, 0, storage.vector))
        layers, heads, _, vector = self.array.shape
        self.bytes_per_token = int(layers * heads * vector * self.array.itemsize)
        self._limit = limit
        self._zeros = storage.zeros

    @property
    def slots(self) -> int:
        return int(self.array.shape[2])

    @property
    def nbytes(self) -> int:
        return self.bytes_per_token * self.slots

    def reserve(self, length: int, count: int) -> None:
        """Make room for `count` more positions: evict where the window is full, allocate where needed."""
        start, largest = self.start, self._limit
        if self.window is not None:
            largest = min(largest, self.window + 2 * SLACK)
        if length + count - start <= self.slots:
            return
        if self.window is not None and length + count - start > largest:
            start = max(start, length - (self.window - 1 + SLACK))
        slots = max(length + count - start, min(largest, max(2 * self.slots, FIRST_ALLOCATION)))
        held = self.array[:, :, start - self.start : max(start, length) - self.start]
        self.array, self.start = self._copy(held, slots), start

    def keeps(self, length: int) -> bool:
        """Whether everything is there that the position `length` needs."""
        return self.window is None or self.start <= max(0, length - self.window + 1)

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on. Storage stays."""
        if length == 0:
            self.start = 0

    def cut(self, start: int, length: int) -> Cut:
        """A copy of the positions from `start` on, as far as they are there."""
        start = max(start, self.start)
        part = self.array[:, :, start - self.start : length - self.start]
        return Cut(start, self._copy(part, part.shape[2]))

    def put(self, length: int, count: int, cut: Cut) -> None:
        """Take the last of `count` positions behind `length` from a cut. One with a gap before it makes what is there
        already useless."""
        if cut.start > length:
            self.start = cut.start
        self.reserve(length, count)
        self.array[:, :, cut.start - self.start : length + count - self.start] = cut.array

    def copy(self, length: int) -> KeysValues:
        """Another that holds the same positions, in as much storage of its own."""
        twin = copy(self)
        twin.array = self._copy(self.array[:, :, : length - self.start], self.slots)
        return twin

    def prefix(self, length: int) -> KeysValues:
        """Another that holds the first `length` positions, as far as they are there, with room for some more."""
        twin = copy(self)
        twin.truncate(length)
        held = self.array[:, :, : max(0, length - twin.start)]
        twin.array = self._copy(held, held.shape[2] + FIRST_ALLOCATION)
        return twin

    def _copy(self, part: Array, slots: int) -> Array:
        """These positions in new storage."""
        layers, heads, count, vector = part.shape
        array = self._zeros((layers, heads, slots, vector))
        array[:, :, :count] = part
        return array

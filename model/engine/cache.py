"""The key-value cache: what the model keeps of every earlier position, one row per sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from tokenglass.model.config.config import SLACK, ModelConfig
from tokenglass.model.errors import PromptError
from tokenglass.model.records.steps import CacheUsage

FIRST_ALLOCATION = 64  # positions
NO_TOKEN = -1  # stands for a position that saw more than the tokens before it

Array = Any  # of numpy or a tensor: both are cut, copied and indexed alike


@dataclass(frozen=True, slots=True)
class CacheTail:
    """The end of one row, cut off by `detach`: its ids, keys and values per layer, each (kv_heads, length, head_dim).

    Sliding-window layers hold the positions from `held_from` on, the others from `start`.
    """

    start: int
    token_ids: tuple[int, ...]
    held_from: int
    keys: tuple[Array, ...]
    values: tuple[Array, ...]

    @property
    def length(self) -> int:
        return len(self.token_ids)

    @property
    def end(self) -> int:
        return self.start + self.length


class KVCache:
    """Keys and values of every layer, each (rows, kv_heads, allocated, head_dim).

    In a layer that sees everything slot = position, and storage doubles as it fills, up to `limit` positions. A
    sliding-window layer lets go of its oldest positions when its window and slack are full: in row r its slot 0 is
    position `starts[r]`. A forward pass calls `reserve`, then `write` in each layer, then `advance`; a pass that fails
    before `advance` leaves the cache as it was. A row remembers the ids it was computed from: `keep_prefix` finds what
    of it holds for another text. `planned_length` is the length the run may reach, by which some ropes choose their
    factors; without it, the limit. `zeros` makes the storage of a shape, as the engine keeps it.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        rows: int = 1,
        limit: int,
        zeros: Callable[[tuple[int, ...]], Array],
        planned_length: int | None = None,
    ):
        shape = (rows, config.num_kv_heads, 0, config.head_dim)
        self._zeros = zeros
        self.config = config
        self.limit = limit
        self.planned_length = limit if planned_length is None else planned_length
        self.token_ids: list[list[int]] = [[] for _ in range(rows)]
        self.starts = [0] * rows
        self.window = config.window
        self.slides = [kind.window is not None for kind in config.layers]
        self.moves = 0  # how often storage was replaced: until then its addresses are true
        self.groups = {slides: self.slides.index(slides) for slides in self.slides}  # with one layer of each
        self.keys = [zeros(shape) for _ in self.slides]
        self.values = [zeros(shape) for _ in self.slides]

    @property
    def rows(self) -> int:
        return len(self.token_ids)

    @property
    def lengths(self) -> list[int]:
        """Positions of each row."""
        return [len(token_ids) for token_ids in self.token_ids]

    @property
    def allocated(self) -> int:
        """Positions there is storage for, in the layers that have most."""
        return max(self.keys[layer].shape[2] for layer in self.groups.values())

    @property
    def is_uniform(self) -> bool:
        """Whether every row has the same length, so that whole slices can be written and read."""
        return len(set(self.lengths)) <= 1 and len(set(self.starts)) <= 1

    @property
    def positions_read(self) -> int:
        """Positions of the longest row."""
        return max(self.lengths, default=0)

    def serves(self, planned_length: int | None) -> bool:
        """Whether a run of this length (None: the limit) has the rotary factors that this cache was filled with."""
        planned_length = self.limit if planned_length is None else planned_length
        return self.config.rope_regime(planned_length) == self.config.rope_regime(self.planned_length)

    def reserve(self, count: int) -> None:
        """Make room for `count` new positions in every row. Raises PromptError where a row would pass the limit."""
        needed = self.positions_read + count
        if needed > self.limit:
            raise PromptError(f"{needed:,} positions do not fit in a context of {self.limit:,}")
        self._make_room(count)

    def read_by(self, window: int | None, count: int) -> tuple[list[int], int, bool]:
        """How layers with this window read after a write of `count`: the position in each row's slot 0, the number of
        slots, and whether both are the same in every row."""
        starts = [0] * self.rows if window is None else self.starts
        return starts, self._held(starts) + count, self.is_uniform

    def advance(self, token_ids: Sequence[Sequence[int]], *, block: int = 0) -> None:
        """Count the positions of `token_ids` (rows, count), which a finished forward pass has written.

        The last `block` of them saw each other: where that is more than themselves, they are good for no text.
        """
        spoilt = block if block > 1 else 0
        for held, new_ids in zip(self.token_ids, token_ids, strict=True):
            held.extend([*new_ids[: len(new_ids) - spoilt], *[NO_TOKEN] * spoilt])

    def keep_prefix(self, row: int, token_ids: Sequence[int]) -> int:
        """Forget the positions of `row` behind those that these ids begin with; the length that is left, as `truncate`
        has it."""
        held = self.token_ids[row]
        if (length := common_prefix(held, token_ids)) < len(held):
            self.truncate(row, length)
        return len(held)

    def truncate(self, row: int, length: int) -> int:
        """Forget the positions of `row` from `length` on; the length that is left. Storage stays.

        That is 0 where a sliding-window layer has let go of what the position `length` needs: then the row is empty,
        and its prefix is to be computed again.
        """
        held = self.token_ids[row]
        if not 0 <= length <= len(held):
            raise ValueError(f"cannot truncate a row of {len(held)} positions to {length}")
        if self.window is not None and self.starts[row] > max(0, length - self.window + 1):
            length = 0
        if length == 0:
            self.starts[row] = 0
        del held[length:]
        return length

    def select(self, rows: Sequence[int]) -> None:
        """Make the cache hold a copy of these rows, in this order (repeats copy: beams, samples)."""
        self.moves += 1
        index = list(rows)
        self.keys = [store[index] for store in self.keys]
        self.values = [store[index] for store in self.values]
        self.token_ids = [self.token_ids[row].copy() for row in rows]
        self.starts = [self.starts[row] for row in rows]

    def clone(self) -> KVCache:
        """Another cache that holds the same."""
        twin = copy(self)
        twin.select(range(self.rows))
        return twin

    def detach(self, row: int, start: int) -> CacheTail:
        """Cut the positions of `row` from `start` on and return them, so that a branch keeps only what differs.

        The row is left as `truncate` leaves it: empty where its sliding-window layers cannot go back so far.
        """
        end, first = self.lengths[row], self.starts[row]
        cuts = [
            slice(max(start, first) - first, end - first) if slides else slice(start, end) for slides in self.slides
        ]
        tail = CacheTail(
            start=start,
            token_ids=tuple(self.token_ids[row][start:]),
            held_from=max(start, first),
            keys=tuple(self._copy(store[row, :, cut]) for store, cut in zip(self.keys, cuts, strict=True)),
            values=tuple(self._copy(store[row, :, cut]) for store, cut in zip(self.values, cuts, strict=True)),
        )
        self.truncate(row, start)
        return tail

    def attach(self, row: int, tail: CacheTail) -> None:
        """Put a tail back behind the prefix it was cut from."""
        if self.lengths[row] != tail.start:
            raise ValueError(f"a tail from position {tail.start} does not fit a row of {self.lengths[row]} positions")
        if tail.end > self.limit:
            raise ValueError(f"a tail up to position {tail.end} does not fit in a cache of {self.limit}")
        if tail.held_from > tail.start:  # the tail begins with a gap: what is before it is of no use
            self.starts[row] = tail.held_from
        self._make_room(tail.length, row)
        for stores, tails in ((self.keys, tail.keys), (self.values, tail.values)):
            for slides, store, saved in zip(self.slides, stores, tails, strict=True):
                end = tail.end - (self.starts[row] if slides else 0)
                store[row, :, end - saved.shape[1] : end] = saved
        self.token_ids[row] += tail.token_ids

    def usage(self, row: int = 0) -> CacheUsage:
        """One row's share, in positions and bytes of the real tensors.

        `bytes_per_token` is what a position takes while every layer holds it; `evicted` positions are held only by
        the layers without a window.
        """
        length, evicted = self.lengths[row], self.starts[row]
        used = held = per_token = allocated = 0
        for slides, layer in self.groups.items():  # layers of a group have storage of one shape
            _, heads, slots, head_dim = self.keys[layer].shape
            size = self.slides.count(slides) * 2 * heads * head_dim * self.keys[layer].itemsize  # per position
            used += size * (length - evicted if slides else length)
            held += size * slots
            per_token += size
            allocated = max(allocated, slots)
        return CacheUsage(length, self.limit, allocated, used, held, per_token, evicted)

    def _copy(self, array: Array) -> Array:
        copy = self._zeros(tuple(array.shape))
        copy[...] = array
        return copy

    def _held(self, starts: Sequence[int]) -> int:
        """Slots in use, in the row that uses most."""
        return max((length - start for length, start in zip(self.lengths, starts, strict=True)), default=0)

    def _make_room(self, count: int, row: int | None = None) -> None:
        """Let every row (or one) take `count` more positions: evict where windows are full, allocate where needed."""
        grown = [length + (count if row in (None, r) else 0) for r, length in enumerate(self.lengths)]
        for slides, layer in self.groups.items():
            allocated = self.keys[layer].shape[2]
            starts, largest = [0] * self.rows, self.limit
            if slides and self.window is not None:
                starts, largest = list(self.starts), min(self.limit, self.window + 2 * SLACK)
            needed = max((end - start for end, start in zip(grown, starts, strict=True)), default=0)
            if needed <= allocated:
                continue
            if slides and self.window is not None and needed > largest:
                kept = self.window - 1 + SLACK
                starts = [max(start, length - kept) for start, length in zip(starts, self.lengths, strict=True)]
                needed = max(end - start for end, start in zip(grown, starts, strict=True))
            self._move(slides, starts, max(needed, min(largest, max(2 * allocated, FIRST_ALLOCATION))))

    def _move(self, slides: bool, starts: list[int], allocated: int) -> None:
        """Give these layers new storage whose slot 0 is position `starts[row]`."""
        shifts = [new - old for new, old in zip(starts, self.starts, strict=True)] if slides else [0] * self.rows
        moves = [(slice(row, row + 1), shift) for row, shift in enumerate(shifts)]
        if len(set(shifts)) == 1:
            moves = [(slice(None), shifts[0])]
        self.moves += 1
        layers = [layer for layer, other in enumerate(self.slides) if other == slides]
        rows, heads, length, head_dim = self.keys[layers[0]].shape
        shape = (2 * len(layers), rows, heads, allocated, head_dim)
        # Zeros, because a NaN left in memory would spoil the shorter rows even where the mask hides it.
        memory = iter(self._zeros(shape))
        for layer in layers:
            for stores in (self.keys, self.values):
                old = stores[layer]
                new = stores[layer] = next(memory)
                for moved, shift in moves:
                    kept = min(length - shift, allocated)
                    new[moved, :, :kept] = old[moved, :, shift : shift + kept]
        if slides:
            self.starts = starts


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many items two sequences begin with in common."""
    count = min(len(first), len(second))
    one, other = list(first[:count]), list(second[:count])
    return count if one == other else next(k for k in range(count) if one[k] != other[k])

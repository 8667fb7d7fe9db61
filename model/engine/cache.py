"""The key-value cache: what the model keeps of every earlier position, one row per sequence."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_states import RecurrentState
from tokenglass.model.engine.keys_values import Array, Cut, KeysValues, LayerGroup, Storage, layer_groups, layer_places
from tokenglass.model.engine.recurrent import Recurrent
from tokenglass.model.errors import PromptError
from tokenglass.model.records.steps import CacheUsage, StateUsage

NO_TOKEN = -1  # stands for a position that saw more than the tokens before it


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CacheTail:
    """The end of one row, cut off by `detach`: its ids, and what each group of layers keeps of them."""

    start: int
    token_ids: tuple[int, ...]
    cuts: tuple[Cut, ...]

    @property
    def length(self) -> int:
        return len(self.token_ids)

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def nbytes(self) -> int:
        return sum(int(cut.array.nbytes) for cut in self.cuts)


State = KeysValues | Recurrent


def new_state(group: LayerGroup, cache: KVCache) -> State:
    """An empty state of the kind that these layers have."""
    if isinstance(group.state, RecurrentState):
        return Recurrent(group.state, len(group.layers), cache.storage)
    return KeysValues(group.state, len(group.layers), cache.limit, cache.storage)


class CacheRow:
    """One sequence: the ids of its positions, and `states`, what each group of layers keeps of them.

    `planned_length` is the length the run may reach, by which some ropes choose their factors.
    """

    def __init__(self, cache: KVCache, planned_length: int):
        self.token_ids: list[int] = []
        self.planned_length = planned_length
        self.limit = cache.limit
        self._places = cache.places
        self.states: list[State] = [new_state(group, cache) for group in cache.groups]

    @property
    def length(self) -> int:
        return len(self.token_ids)

    @property
    def start(self) -> int:
        """The first position that sliding-window layers hold."""
        return max(state.start for state in self.states)

    def place(self, layer: int) -> tuple[int, int]:
        """Which of the states keeps a layer, and at which place in it."""
        return self._places[layer]

    def vectors(self, layer: int) -> tuple[Array, int]:
        """What a layer keeps (arrays, heads, slots, vector), and the position in its slot 0."""
        group, place = self._places[layer]
        state = self.states[group]
        assert isinstance(state, KeysValues), "a layer without vectors"
        return state.layer(place), state.start

    def recurrent(self, layer: int) -> tuple[Array | None, Array]:
        """Of a recurrent layer the state behind the row (size,), None where it is empty, and where a pass writes the
        next."""
        group, place = self._places[layer]
        state = self.states[group]
        assert isinstance(state, Recurrent), "a layer without a recurrent state"
        assert state.next is not None, "reserve first"
        return None if state.current is None else state.current[place], state.next[place]

    def layer(self, layer: int) -> tuple[Array, Array, int]:
        """Keys and values of a layer with attention, each (kv_heads, slots, vector), and the position of slot 0."""
        (keys, values), start = self.vectors(layer)
        return keys, values, start

    def reserve(self, count: int) -> None:
        for state in self.states:
            state.reserve(self.length, count)

    def advance(self, token_ids: Sequence[int], block: int) -> None:
        spoilt = block if block > 1 else 0
        self.token_ids.extend([*token_ids[: len(token_ids) - spoilt], *[NO_TOKEN] * spoilt])
        for state in self.states:
            state.advance(self.length)

    def reach(self, length: int) -> int:
        """The last position up to `length` to which all states can go back."""
        while (least := min(state.reach(length) for state in self.states)) < length:
            length = least
        return length

    def truncate(self, length: int) -> int:
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a row of {self.length} positions to {length}")
        length = self.reach(length)
        for state in self.states:
            state.truncate(length)
        del self.token_ids[length:]
        return length

    def detach(self, start: int) -> CacheTail:
        cuts = tuple(state.cut(start, self.length) for state in self.states)
        tail = CacheTail(start, tuple(self.token_ids[start:]), cuts)
        self.truncate(start)
        return tail

    def attach(self, tail: CacheTail) -> None:
        if self.length != tail.start:
            raise ValueError(f"a tail from position {tail.start} does not fit a row of {self.length} positions")
        if tail.end > self.limit:
            raise ValueError(f"a tail up to position {tail.end} does not fit in a cache of {self.limit}")
        for state, cut in zip(self.states, tail.cuts, strict=True):
            state.put(self.length, tail.length, cut)
        self.token_ids += tail.token_ids

    def copy(self) -> CacheRow:
        return self.prefix(self.length, self.planned_length)

    @property
    def nbytes_of_copy(self) -> int:
        return sum(state.nbytes_of_copy(self.length) for state in self.states)

    def prefix(self, length: int, planned_length: int) -> CacheRow:
        """Another row that holds the first `length` positions, with room for some more; fewer, or none, where a state
        cannot go back so far."""
        length = self.reach(length)
        twin = copy(self)
        twin.planned_length = planned_length
        twin.token_ids = self.token_ids[:length]
        twin.states = [state.prefix(length) for state in self.states]
        return twin

    def usage(self) -> CacheUsage:
        length, allocated, start = self.length, 0, 0
        per_token = held = 0
        used: dict[str, int] = {}
        for state in self.states:
            per_token += state.bytes_per_token
            used[state.name] = used.get(state.name, 0) + state.nbytes_used(length)
            held += state.nbytes
            allocated, start = max(allocated, state.slots), max(start, state.start)
        kinds = tuple(StateUsage(name, nbytes) for name, nbytes in used.items()) if len(used) > 1 else None
        return CacheUsage(length, self.limit, allocated, sum(used.values()), held, per_token, start, kinds)


class KVCache:
    """The rows that a forward pass goes on with, numbered in their order. Each writes to storage of its own: rows come
    and go without the others being copied or moved. What several begin with may lie in storage that all of them read.

    A forward pass calls `reserve`, writes keys and values of each layer, then calls `advance`; a pass that fails
    before that leaves the cache as it was. A row remembers the ids it was computed from: `keep_prefix` finds what of it
    holds for another text. No row passes `limit` positions. `planned_length` is that of rows that do not bring their
    own; without it, the limit.
    """

    def __init__(
        self, config: ModelConfig, *, rows: int = 1, limit: int, storage: Storage, planned_length: int | None = None
    ):
        self.config = config
        self.limit = limit
        self.storage = storage
        self.planned_length = limit if planned_length is None else planned_length
        self.groups: tuple[LayerGroup, ...] = layer_groups(config)
        self.places = layer_places(self.groups)
        self.rows = [CacheRow(self, self.planned_length) for _ in range(rows)]

    @property
    def lengths(self) -> list[int]:
        """Positions of each row."""
        return [row.length for row in self.rows]

    def serves(self, planned_length: int | None) -> bool:
        """Whether a run of this length (None: the limit) has the rotary factors that this cache was filled with."""
        planned_length = self.limit if planned_length is None else planned_length
        return self.config.rope_regime(planned_length) == self.config.rope_regime(self.planned_length)

    def add_row(self, planned_length: int | None = None) -> int:
        """An empty row behind the others; its number."""
        self.rows.append(CacheRow(self, self.planned_length if planned_length is None else planned_length))
        return len(self.rows) - 1

    def copy_prefix(self, row: int, to: int, length: int) -> None:
        """Let the row `to` begin as `row` does: with its first `length` positions, or none where its sliding windows
        have let go of them."""
        self.rows[to] = self.rows[row].prefix(length, self.rows[to].planned_length)

    def shares(self, row: int, planned_length: int) -> bool:
        """Whether a text of this planned length has the rotary factors that `row` was filled with."""
        own = self.rows[row].planned_length
        return planned_length == own or self.config.rope_regime(planned_length) == self.config.rope_regime(own)

    def free_row(self, row: int) -> None:
        """Let go of a row; those behind it move up."""
        del self.rows[row]

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order: one that comes again is copied, one that does not come is freed."""
        self.rows = [self.rows[row] for row in rows]  # the others are gone before a copy is made
        for place, row in enumerate(self.rows):
            if any(row is other for other in self.rows[:place]):
                self.rows[place] = row.copy()

    def reserve(self, counts: Sequence[int]) -> None:
        """Make room for new positions, so many in each row. Raises PromptError where a row would pass the limit."""
        for row, count in zip(self.rows, counts, strict=True):
            if row.length + count > self.limit:
                raise PromptError(f"{row.length + count:,} positions do not fit in a context of {self.limit:,}")
        for row, count in zip(self.rows, counts, strict=True):
            row.reserve(count)

    def advance(self, token_ids: Sequence[Sequence[int]], blocks: Sequence[int]) -> None:
        """Count the positions of these ids, each row's own, which a finished forward pass has written.

        The last of a row, as many as its block has, saw each other: where that is more than themselves, they are good
        for no text.
        """
        for row, new_ids, block in zip(self.rows, token_ids, blocks, strict=True):
            row.advance(new_ids, block)

    def keep_prefix(self, row: int, token_ids: Sequence[int]) -> int:
        """Forget the positions of `row` behind those that these ids begin with; the length that is left, as `truncate`
        has it."""
        held = self.rows[row].token_ids
        if (length := common_prefix(held, token_ids)) < len(held):
            self.truncate(row, length)
        return len(held)

    def truncate(self, row: int, length: int) -> int:
        """Forget the positions of `row` from `length` on; the length that is left. Storage stays.

        That is less where a recurrent layer has no snapshot there, and 0 where a sliding-window layer has let go of
        what the position `length` needs: the rest of the prefix is to be computed again.
        """
        return self.rows[row].truncate(length)

    def detach(self, row: int, start: int) -> CacheTail:
        """Cut the positions of `row` from `start` on and return them, so that a branch keeps only what differs.

        The row is left as `truncate` leaves it: empty where its sliding-window layers cannot go back so far.
        """
        return self.rows[row].detach(start)

    def attach(self, row: int, tail: CacheTail) -> None:
        """Put a tail back behind the prefix it was cut from."""
        self.rows[row].attach(tail)

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Storage as numpy has it, bfloat16 as bits of a dtype of their own."""
        numpy: NDArray[Any] = array
        return numpy

    def from_numpy(self, array: NDArray[Any]) -> Array:
        """The inverse of `to_numpy`."""
        return array

    def usage(self, row: int = 0) -> CacheUsage:
        """One row in positions and bytes of the real arrays.

        `bytes_per_token` is what a position takes while every layer holds it; `evicted` positions are held only by
        the layers without a window.
        """
        return self.rows[row].usage()


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many items two sequences begin with in common."""
    if first == second:
        return len(first)
    count = min(len(first), len(second))
    one, other = list(first[:count]), list(second[:count])
    return count if one == other else next(k for k in range(count) if one[k] != other[k])

"""The state of layers that fold a text into numbers of a fixed size, as a recurrence does: those of one row."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokenglass.model.engine.keys_values import Array, Cut, Storage

if TYPE_CHECKING:
    from tokenglass.model.config.layer_states import RecurrentState

MOST_SNAPSHOTS = 6  # of a row: those of the last passes, and further back ever fewer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state behind the first `length` positions (layers, size); one that is shared is never written again."""

    length: int
    array: Array
    is_shared: bool = False


class Recurrent:
    """`snapshots`, the last of which is the state behind the whole row.

    A pass reads that and writes `next`, so that the states before it stay as they are, and rows can share them. A row
    goes back to a snapshot: what lies between there and the position that was asked for is computed again. Of many,
    those go first that the others stand for best, so that going back costs about as much as one goes back at most.
    """

    window = None
    start = slots = bytes_per_token = 0

    def __init__(self, state: RecurrentState, layers: int, storage: Storage):
        self.name = state.name
        self.snapshots: tuple[Snapshot, ...] = ()
        self.next: Array | None = None
        self._shape = (layers, state.size)
        self._spare: Array | None = None  # of a snapshot that is gone
        self._storage = storage

    @property
    def length(self) -> int:
        return self.snapshots[-1].length if self.snapshots else 0

    @property
    def current(self) -> Array | None:
        """The state behind the row (layers, size); None where it is empty."""
        return self.snapshots[-1].array if self.snapshots else None

    @property
    def blank(self) -> Array:
        """An array like those of the snapshots, of no layers."""
        return self._storage.floats((0, self._shape[1]))

    @property
    def size_nbytes(self) -> int:
        return 4 * self._shape[0] * self._shape[1]

    @property
    def nbytes(self) -> int:
        """Of all snapshots, and of what the next pass writes."""
        others = sum(array is not None for array in (self.next, self._spare))
        return self.size_nbytes * (len(self.snapshots) + others)

    def nbytes_used(self, length: int) -> int:
        return self.size_nbytes if length else 0

    def cut_shape(self, _count: int) -> tuple[int, ...]:
        return self._shape

    def reserve(self, _length: int, count: int) -> None:
        if count and self.next is None:
            self.next = self._storage.floats(self._shape) if self._spare is None else self._spare
            self._spare = None

    def advance(self, length: int) -> None:
        """Take what a pass has written."""
        if self.next is not None and length > self.length:
            self._append(Snapshot(length, self.next))
            self.next = None

    def reach(self, length: int) -> int:
        """The last position up to `length` to which the row can go back."""
        return max((each.length for each in self.snapshots if each.length <= length), default=0)

    def truncate(self, length: int) -> None:
        for each in self.snapshots:
            if each.length > length:
                self._spare = each.array if not each.is_shared else self._spare
        self.snapshots = tuple(each for each in self.snapshots if each.length <= length)

    def cut(self, start: int, length: int) -> Cut:
        """The state behind `length` positions; nothing where none are cut off."""
        if start == length or not self.snapshots:
            return Cut(start, self.blank)
        self._share()
        return Cut(start, self.snapshots[-1].array)

    def put(self, length: int, count: int, cut: Cut) -> None:
        if count:
            self._append(Snapshot(length + count, cut.array, is_shared=True))

    def prefix(self, length: int) -> Recurrent:
        """Another that holds the first `length` positions, which `reach` gave; it shares the snapshots."""
        self._share()
        twin = copy(self)
        twin.next = twin._spare = None
        twin.snapshots = tuple(each for each in self.snapshots if each.length <= length)
        return twin

    def nbytes_of_copy(self, _length: int) -> int:
        """What `prefix` takes, once it goes on."""
        return self.size_nbytes

    def _share(self) -> None:
        self.snapshots = tuple(replace(each, is_shared=True) for each in self.snapshots)

    def _append(self, snapshot: Snapshot) -> None:
        snapshots = [*self.snapshots, snapshot]
        if len(snapshots) > MOST_SNAPSHOTS:
            ends = [0, *(each.length for each in snapshots)]
            spread = [(ends[k + 2] - ends[k]) / (ends[-1] - ends[k]) for k in range(len(snapshots) - 1)]
            gone = snapshots.pop(spread.index(min(spread)))
            self._spare = gone.array if not gone.is_shared else self._spare
        self.snapshots = tuple(snapshots)

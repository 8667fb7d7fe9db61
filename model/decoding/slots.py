"""Which text has which row of a cache: texts come and go, and one that begins as another did gets a copy of its row."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.engine.cache import KVCache, common_prefix
from tokenglass.model.engine.keys_values import growth

LEAST_SHARED = 32  # tokens that texts begin with in common, for which it is worth to wait and to copy


@dataclass(slots=True)
class Slot:
    """A text in its row. It waits for `shared` tokens of what `donor` computes, where it has one."""

    sequence: Sequence
    planned_length: int
    began: float = field(default_factory=time.perf_counter)
    donor: Slot | None = None
    shared: int = 0
    parent: int | None = None  # the sequence that it shares with, until its first step says so
    has_finish: bool = False  # whether its end was told

    @property
    def is_open(self) -> bool:
        return self.sequence.reason is None

    @property
    def is_late(self) -> bool:
        limit = self.sequence.request.max_seconds
        return limit is not None and time.perf_counter() - self.began >= limit


class Slots:
    """At most `most` texts, each in the row of the cache that has its number, which together plan for at most `room`
    positions (None: as many as they like).

    The row of a text that has ended stays until another needs its place: one that begins as it did goes on from there.
    """

    def __init__(self, cache: KVCache, most: int, room: int | None = None):
        self.cache = cache
        self.slots: list[Slot] = []
        self._most = most
        self._room = room

    @property
    def open(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.is_open]

    def has_place(self, sequence: Sequence) -> bool:
        """Whether one more text may begin; the only one always may."""
        is_open = self.open
        if not is_open:
            return True
        sizes = [self._size(slot.planned_length) for slot in is_open]
        needed = self._size(sequence.request.planned_length(self.cache.limit))
        return len(is_open) < self._most and (self._room is None or sum(sizes) + needed <= self._room)

    def begin(self, sequence: Sequence) -> None:
        """Give a text a row: that of an ended one that begins alike, or a new one."""
        slot = Slot(sequence, sequence.request.planned_length(self.cache.limit))
        shared, row = self._most_alike(slot)
        donor = self.slots[row] if shared >= LEAST_SHARED else None
        if donor is not None:
            slot.parent = donor.sequence.number
            if not donor.is_open:
                self.cache.rows[row].planned_length = slot.planned_length
                self.cache.truncate(row, shared)
                self.slots[row] = slot
                return
            slot.donor, slot.shared = donor, shared
        self._free_rows(slot)
        self.cache.add_row(slot.planned_length)
        self.slots.append(slot)

    def share(self) -> None:
        """Copy what texts wait for and is computed by now; where it is gone, they compute it themselves."""
        for row, slot in enumerate(self.slots):
            if slot.donor is None:
                continue
            source = next((place for place, other in enumerate(self.slots) if other is slot.donor), None)
            if source is not None:
                held = self.cache.rows[source].token_ids
                if slot.donor.is_open and len(held) < slot.shared:
                    continue
                self.cache.copy_prefix(source, row, common_prefix(held, slot.sequence.token_ids[:-1]))
            slot.donor = None

    def _most_alike(self, slot: Slot) -> tuple[int, int]:
        """How many tokens a text has in common with the row that begins most like it, and that row; an ended one if
        there is one."""
        wanted, best = slot.sequence.token_ids[:-1], (0, False, 0)
        for row, other in enumerate(self.slots):
            held = other.sequence.token_ids if other.is_open else self.cache.rows[row].token_ids
            likeness = (common_prefix(held, wanted), not other.is_open, row)
            if likeness > best and self.cache.shares(row, slot.planned_length):
                best = likeness
        return best[0], best[2]

    def _free_rows(self, slot: Slot) -> None:
        """Let go of the rows of ended texts, the oldest first, as far as one more text needs it."""
        needed = self._size(slot.planned_length)
        while (ended := next((row for row, other in enumerate(self.slots) if not other.is_open), None)) is not None:
            planned = sum(self._size(other.planned_length) for other in self.slots)
            if len(self.slots) < self._most and (self._room is None or planned + needed <= self._room):
                return
            del self.slots[ended]
            self.cache.free_row(ended)

    def _size(self, planned_length: int) -> int:
        """Positions that a row gets storage for, at most."""
        return growth(planned_length, self.cache.limit)[1]

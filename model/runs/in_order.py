"""Results that come in any order, passed on in that of their numbers."""

from __future__ import annotations

from collections.abc import Callable

MOST_BYTES = 16 * 2**20  # that may wait for an earlier one


class InOrder:
    """Passes lines on to `write` in the order of their numbers, which count from 0; `unordered`, as they come."""

    def __init__(self, write: Callable[[bytes], None], *, unordered: bool = False):
        self._write = write
        self._unordered = unordered
        self._turn = 0
        self._waiting: dict[int, bytes] = {}
        self._nbytes = 0

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing new had better begin."""
        return self._nbytes > MOST_BYTES

    def add(self, number: int, line: bytes) -> None:
        if self._unordered:
            self._write(line)
            return
        self._waiting[number] = line
        self._nbytes += len(line)
        while self._turn in self._waiting:
            due = self._waiting.pop(self._turn)
            self._nbytes -= len(due)
            self._turn += 1
            self._write(due)

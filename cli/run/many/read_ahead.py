"""Lines that a thread reads ahead, so that texts in work never wait for a slow pipe."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

Line = tuple[int, bytes]
MOST_AHEAD = 64  # lines
MOMENT = 0.1  # seconds


class ReadAhead:
    """The lines of an iterator, as they come. An error of reading is raised behind the lines before it."""

    def __init__(self, lines: Iterator[Line]):
        self.is_over = False
        self._lines = lines
        self._queue: queue.Queue[Line | BaseException | None] = queue.Queue(MOST_AHEAD)
        threading.Thread(target=self._read, daemon=True).start()

    def take(self, *, wait: bool) -> Line | None:
        """The next line; None where there is none yet, after a moment where it may `wait`, or none any more."""
        if self.is_over:
            return None
        try:
            item = self._queue.get(timeout=MOMENT) if wait else self._queue.get_nowait()
        except queue.Empty:
            return None
        self.is_over = not isinstance(item, tuple)
        if isinstance(item, BaseException):
            raise item
        return item

    def _read(self) -> None:
        try:
            for line in self._lines:
                self._queue.put(line)
        except BaseException as error:
            self._queue.put(error)
        else:
            self._queue.put(None)

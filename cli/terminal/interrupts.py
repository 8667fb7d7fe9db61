"""Ctrl-C as a flag."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def soft_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the flag, which the loop reads between steps; the second raises KeyboardInterrupt."""
    flag = threading.Event()

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


class ChatInterrupts:
    """Ctrl-C in a chat, from its first line to its last: it stops what is going on, and never ends the chat.

    Between the turns it does nothing. What is armed is so for one KeyboardInterrupt: whoever arms it stands in a `try`.
    """

    def __init__(self) -> None:
        self.flag = threading.Event()
        self._act: Callable[[], None] | None = None

    @contextmanager
    def handled(self) -> Iterator[ChatInterrupts]:
        previous = signal.signal(signal.SIGINT, self._on)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, previous)

    def arm(self) -> None:
        """Ctrl-C raises KeyboardInterrupt."""
        self._act = self._raise

    def soften(self) -> threading.Event:
        """The first Ctrl-C sets the flag, which an answer reads between steps; the second raises."""
        self.flag.clear()
        self._act = self._set
        return self.flag

    def disarm(self) -> None:
        self._act = None

    def _on(self, _signal: int, _frame: FrameType | None) -> None:
        if self._act is not None:
            self._act()

    def _raise(self) -> None:
        self._act = None
        raise KeyboardInterrupt

    def _set(self) -> None:
        self.arm()
        self.flag.set()

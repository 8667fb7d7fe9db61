"""Ctrl-C as a flag."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt(threading.Event):
    """Set by a signal that ends the run."""

    def __init__(self) -> None:
        super().__init__()
        self.signal: int = signal.SIGINT

    @property
    def exit_code(self) -> int:
        """That of a program which the signal ended."""
        return 128 + self.signal


@contextmanager
def soft_interrupt(flag: Interrupt | None = None) -> Iterator[Interrupt]:
    """The first Ctrl-C or SIGTERM sets the flag, which the loop reads between steps; the second quits."""
    flag = Interrupt() if flag is None else flag

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if flag.is_set():
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        flag.signal = number
        flag.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class ChatInterrupts:
    """Ctrl-C in a chat, from its first line to its last: it stops what is going on, and never ends the chat.

    Between the turns it does nothing. What is armed is so for one KeyboardInterrupt: whoever arms it stands in a `try`.
    """

    def __init__(self) -> None:
        self.flag = threading.Event()
        self._act: Callable[[], None] | None = None

    @contextmanager
    def handle(self) -> Iterator[ChatInterrupts]:
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

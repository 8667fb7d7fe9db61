"""Ctrl-C as a flag."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
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

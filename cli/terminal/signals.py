"""Signals that wait while a frame is being written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

Action = Callable[[], None]
ENDING = frozenset({signal.SIGINT, signal.SIGTERM})  # a terminal that takes no more bytes must not hold these up


class Signals:
    """Acts on signals between frames; one that ends the program is acted on at once when it comes a second time."""

    def __init__(self) -> None:
        self._actions: dict[int, Action] = {}
        self._waiting: list[int] = []
        self._busy = False

    @contextmanager
    def handle(self, actions: Mapping[int, Action]) -> Iterator[None]:
        """Handlers for these signals, in the main thread; the former ones come back at the end.

        A handler that was there for SIGINT stays, but waits for the frame like the others.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._actions = dict(actions)
        interrupted = signal.getsignal(signal.SIGINT)
        if callable(interrupted):
            self._actions[signal.SIGINT] = lambda: interrupted(signal.SIGINT, None)
        former = {number: signal.signal(number, self._on) for number in self._actions}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Signals wait in here."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            while self._waiting:
                self._actions[self._waiting.pop(0)]()

    def _on(self, number: int, _frame: FrameType | None) -> None:
        if not self._busy:
            self._actions[number]()
        elif number not in self._waiting:
            self._waiting.append(number)
        elif number in ENDING:
            self._actions[number]()

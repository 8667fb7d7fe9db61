"""What many prompts show while they are in work: a bar, where there is a terminal for it."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from tokenglass.cli.progress import prompt_bar
from tokenglass.cli.run.many.standing import Standing
from tokenglass.cli.say import say
from tokenglass.cli.terminal.interrupts import Interrupt
from tokenglass.model.records.steps import Record

MOMENT = 0.1  # seconds between two frames


class Screen(Protocol):
    """In a `with` block: takes the lines that go to stdout, what is said, and every record."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def write(self, line: bytes) -> None: ...

    def tell(self, message: str) -> None: ...

    def show(self, record: Record, standing: Standing) -> None: ...


class Bar:
    """A bar on stderr where it `is_drawn`; lines go to stdout as they are."""

    def __init__(self, total: int | None, interrupt: Interrupt, *, is_drawn: bool):
        self._total = total
        self._interrupt = interrupt
        self._is_drawn = is_drawn
        self._stack = ExitStack()
        self._shown = 0.0
        self._is_stopping = False

    def __enter__(self) -> Self:
        self._draw = self._stack.enter_context(prompt_bar(self._total, is_drawn=self._is_drawn))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def write(self, line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    def tell(self, message: str) -> None:
        say(message)

    def show(self, _: Record, standing: Standing) -> None:
        """A frame, where it is time for one."""
        if self._interrupt.is_set() and not self._is_stopping:
            self._is_stopping = True
            say(standing.stopping())
        now = time.perf_counter()
        if now - self._shown >= MOMENT:
            self._shown = now
            self._draw(standing.done, standing.rate)

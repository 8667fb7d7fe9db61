"""Long work as a generator: it yields how far it is, and returns what it made."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is, in bytes or in steps."""

    doing: str
    done: int
    total: int


def finish(work: Generator[Progress, None, Result], show: Callable[[Progress], None] | None = None) -> Result:
    """Run to the end; `show` is given every step."""
    while True:
        try:
            step = next(work)
            if show is not None:
                show(step)
        except StopIteration as end:
            result: Result = end.value
            return result

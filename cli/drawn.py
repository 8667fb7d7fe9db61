"""Work that comes in steps, drawn as a bar on stderr where somebody sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from tokenglass.cli.terminal.terminal import is_terminal, make_console

Item = TypeVar("Item")


def drawn(steps: Iterator[Item], doing: str, total: int, done: Callable[[Item], int]) -> Iterator[Item]:
    """The same steps; `done` says how much of `total` each of them has reached."""
    if not is_terminal(sys.stderr):
        yield from steps
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=make_console(sys.stderr, color="auto"), transient=True) as bars:
        task = bars.add_task(doing, total=total)
        for step in steps:
            bars.update(task, completed=done(step))
            yield step

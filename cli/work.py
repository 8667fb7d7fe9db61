"""Long work shown as a bar on stderr, where somebody sees it."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TypeVar

from tokenglass.cli.say import say
from tokenglass.cli.terminal.terminal import is_terminal, make_console
from tokenglass.model.errors import MadeMeanwhile
from tokenglass.model.progress import Progress, finish

Result = TypeVar("Result")


def work(steps: Generator[Progress, None, None]) -> None:
    """Run to the end, or until another process has done the same; a bar per phase on a terminal, silence elsewhere."""
    try:
        watch(steps)
    except MadeMeanwhile as done:
        say(str(done))


def watch(steps: Generator[Progress, None, Result]) -> Result:
    """What the work returns; a bar per phase on a terminal, silence elsewhere."""
    if not is_terminal(sys.stderr):
        return finish(steps)
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:>11}"), BarColumn(), DownloadColumn(binary_units=True))
    console = make_console(sys.stderr, color="auto")
    with Bars(*columns, TransferSpeedColumn(), console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(step: Progress) -> None:
            if step.doing not in tasks:
                tasks[step.doing] = bars.add_task(step.doing, total=step.total)
            bars.update(tasks[step.doing], completed=step.done)

        return finish(steps, show)

"""Long work drawn as a bar on stderr, where somebody sees it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tokenglass.cli.say import say
from tokenglass.cli.terminal.terminal import is_terminal, make_console

if TYPE_CHECKING:
    from tokenglass.model.checkpoint.partial import Progress


def work(steps: Iterator[Progress]) -> None:
    """Run to the end, or until another process has done the same; a bar per phase on a terminal, silence elsewhere."""
    from tokenglass.model.checkpoint.partial import MadeMeanwhile

    try:
        watch(steps)
    except MadeMeanwhile as done:
        say(str(done))


def watch(steps: Iterator[Progress]) -> None:
    if not is_terminal(sys.stderr):
        for _ in steps:
            pass
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description:>11}"), BarColumn(), DownloadColumn(binary_units=True))
    console = make_console(sys.stderr, color="auto")
    with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as bars:
        tasks = {}
        for step in steps:
            if step.doing not in tasks:
                tasks[step.doing] = bars.add_task(step.doing, total=step.total)
            bars.update(tasks[step.doing], completed=step.done)

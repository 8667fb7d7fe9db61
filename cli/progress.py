"""Long work shown as bars on stderr, one for each phase, where somebody sees them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tokenglass.cli.say import say
from tokenglass.cli.terminal.opening import NO_OPENING, Opening
from tokenglass.cli.terminal.terminal import is_terminal
from tokenglass.cli.text import nbytes
from tokenglass.model.errors import MadeMeanwhile
from tokenglass.model.progress import Progress, finish

Result = TypeVar("Result")
Item = TypeVar("Item")


def watch(work: Generator[Progress, None, Result], opening: Opening = NO_OPENING) -> Result:
    """What the work returns, its bytes shown as they are done: in the opening's line, or else as bars."""
    if opening.is_shown:
        return finish(work, lambda progress: opening.show(in_words(progress)))
    with bars(in_bytes=True) as show:
        return finish(work, show)


def in_words(progress: Progress) -> str:
    return f"{progress.doing}, {nbytes(progress.done)} of {nbytes(progress.total)}"


def watch_store(work: Generator[Progress, None, Result], opening: Opening = NO_OPENING) -> Result | None:
    """The same for work that another process may have done meanwhile, which is said; then there is no result."""
    try:
        return watch(work, opening)
    except MadeMeanwhile as done:
        say(str(done))
        return None


def watch_steps(
    steps: Iterator[Item], doing: str, total: int, count: Callable[[Item], int], opening: Opening = NO_OPENING
) -> Iterator[Item]:
    """The same steps; `count` says how much of `total` each of them has reached."""
    if opening.is_shown:
        for step in steps:
            opening.show(f"{doing}, {count(step):,} of {total:,} tokens")
            yield step
        return
    with bars(in_bytes=False) as show:
        for step in steps:
            show(Progress(doing, count(step), total))
            yield step


@contextmanager
def bars(*, in_bytes: bool) -> Iterator[Callable[[Progress], None]]:
    """What shows how far the work is, in bytes or in steps: nothing where stderr is no terminal."""
    if not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TaskID, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    from tokenglass.cli.terminal.console import make_console

    amounts = (DownloadColumn(binary_units=True), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description:>11}"), BarColumn(), *amounts)
    with Bars(*columns, console=make_console(sys.stderr, color="auto"), transient=True) as drawn:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.doing not in tasks:
                tasks[progress.doing] = drawn.add_task(progress.doing, total=progress.total)
            drawn.update(tasks[progress.doing], completed=progress.done)

        yield show


@contextmanager
def prompt_bar(total: int | None, *, is_drawn: bool) -> Iterator[Callable[[int, float], None]]:
    """What shows how many prompts are done, and at how many tokens per second: a bar with the time that is left, where
    it `is_drawn`."""
    if not is_drawn:
        yield lambda *_: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from tokenglass.cli.terminal.console import make_console

    columns = (
        TextColumn("prompts"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} tok/s"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=make_console(sys.stderr, color="auto"), transient=True) as drawn:
        task = drawn.add_task("", total=total, rate=0.0)
        yield lambda done, rate: drawn.update(task, completed=done, rate=rate)

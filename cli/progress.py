"""A bar on stderr while a large checkpoint is read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from tokenglass.cli.terminal.terminal import is_terminal, make_console

if TYPE_CHECKING:
    from tokenglass.model.checkpoint.arrays import Array
    from tokenglass.model.checkpoint.weights import Watch

LARGE = 256 * 2**20  # bytes; less is read before a bar could be drawn


def loading_bar(nbytes: int) -> Watch | None:
    """A filter over the weights that draws how much of `nbytes` was read; None where nobody would see it."""
    if nbytes < LARGE or not is_terminal(sys.stderr):
        return None
    return lambda weights: watched(weights, nbytes, make_console(sys.stderr, color="auto"))


def watched(weights: Iterator[tuple[str, Array]], nbytes: int, console: Console) -> Iterator[tuple[str, Array]]:
    columns = (TextColumn("loading"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("loading", total=nbytes)
        for name, array in weights:
            progress.advance(task, array.nbytes)
            yield name, array

"""A whole screen that is drawn anew, beside the scrollback: when it goes, what was there before is back."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from rich.console import COLOR_SYSTEMS, Console
from rich.segment import Segment

from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.region import BEGIN, END, ERASE_BELOW, HIDE, SHOW, WRAP_OFF, WRAP_ON
from tokenglass.cli.terminal.wrapping import render

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
ERASE_REST = "\x1b[K"

Row = Sequence[Segment]


class Screen:
    """The alternate screen of one terminal."""

    def __init__(self, console: Console):
        self._console = console
        self._there = False

    def draw(self, rows: Sequence[Row], cursor: tuple[int, int] | None) -> None:
        """Show these rows, of at most the terminal's width and height; the cursor at (column, row), or nowhere."""
        width, height = size(self._console)
        drawn = [] if self._there else [ENTER]
        self._there = True
        drawn += [BEGIN, HIDE, WRAP_OFF]
        for number, row in enumerate(rows[:height]):
            drawn.append(f"\x1b[{number + 1};1H")
            drawn += self._render(row)
            if sum(segment.cell_length for segment in row) < width:  # at the edge it would erase the last cell
                drawn.append(ERASE_REST)
        if len(rows) < height:
            drawn += [f"\x1b[{len(rows) + 1};1H", ERASE_BELOW]
        drawn.append(WRAP_ON)
        if cursor is not None:
            drawn += [f"\x1b[{cursor[1] + 1};{cursor[0] + 1}H", SHOW]
        self._write(*drawn, END)

    def leave(self, text: Sequence[Segment] = ()) -> None:
        """Go back to the scrollback, and write the text there, for the terminal to wrap; the terminal may be gone."""
        there, self._there = self._there, False
        with contextlib.suppress(OSError, ValueError):
            self._write(*([WRAP_ON, LEAVE, SHOW] if there else []), *self._render(text))

    def _render(self, segments: Sequence[Segment]) -> list[str]:
        system = COLOR_SYSTEMS.get(self._console.color_system or "")
        return [render(segment, system, no_color=self._console.no_color) for segment in segments]

    def _write(self, *parts: str) -> None:
        self._console.file.write("".join(parts))
        self._console.file.flush()

"""Text that flows as any terminal text does, with a panel redrawn below it.

The text is written once, by plain writes, so the terminal itself wraps it, scrolls it and joins it when copied.
Between frames the cursor waits where the text ends; all below it is the panel, so that erasing downwards removes
every trace of it, whatever a resize made of its lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from rich.console import COLOR_SYSTEMS, Console
from rich.segment import Segment

from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.terminal.wrapping import advance, hold_back, render

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"  # terminals that know it show a frame at once
SAVE, RESTORE = "\x1b7", "\x1b8"
WRAP_OFF, WRAP_ON = "\x1b[?7l", "\x1b[?7h"
ERASE_BELOW = "\x1b[J"
DOWN = "\x1bD"  # down a line in the same column, scrolling at the last line

Row = Sequence[Segment]


class Region:
    """Writes frames to one terminal. `columns` are where the text may end: a resize leaves more than one answer."""

    def __init__(self, console: Console):
        self._console = console
        self._held: list[Segment] = []  # shown, but not yet written for good
        self._line = ""  # since the last newline
        self._columns = {0}
        self._width = size(console)[0]

    def draw(self, text: Iterable[Segment], rows: Sequence[Row]) -> None:
        """Add text, and show these rows below it in place of the last ones."""
        self._notice_resize()
        settled, held = [*self._held, *self._safe(text)], list[Segment]()
        if rows:
            settled, held = hold_back(settled, self._columns, self._width)
        drawn = [ERASE_BELOW, *self._render(settled)]
        if rows:
            # Room first, by scrolling if need be; then nothing below moves the text any more.
            drawn += [DOWN * len(rows), f"\x1b[{len(rows)}A", SAVE, WRAP_OFF, *self._render(held)]
            for row in rows:
                drawn += ["\r\n", *self._render(row)]
            drawn += [RESTORE, WRAP_ON]
        self._held = held
        self._settle(settled)
        self._write(BEGIN, HIDE, *drawn, SHOW, END)

    def finish(self, text: Iterable[Segment], rows: Sequence[Row]) -> None:
        """The last frame; the cursor goes below it."""
        self._notice_resize()
        settled = [*self._held, *self._safe(text)]
        self._settle(settled)
        self._held = []
        end = ["\r\n"] if rows or self._columns != {0} else []
        drawn = [part for row in rows for part in ("\r\n", *self._render(row))]
        self._write(BEGIN, ERASE_BELOW, *self._render(settled), WRAP_OFF, *drawn, WRAP_ON, *end, SHOW, END)
        self._line, self._columns = "", {0}

    def leave(self, text: Sequence[Segment] = ()) -> None:
        """Take the panel away and leave the text, on a terminal that may be gone."""
        with contextlib.suppress(OSError, ValueError):
            self.finish(text, ())

    def _safe(self, text: Iterable[Segment]) -> list[Segment]:
        ascii_only = self._console.options.ascii_only
        return [Segment(visible(piece, ascii_only=ascii_only), style) for piece, style, _ in Segment.simplify(text)]

    def _settle(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            self._columns = {advance(column, segment.text, self._width) for column in self._columns}
            _, newline, tail = segment.text.rpartition("\n")
            self._line = tail if newline else self._line + tail

    def _notice_resize(self) -> None:
        """Some terminals wrap the text anew, others leave the cursor in its column; both are kept in mind."""
        width = size(self._console)[0]
        if width != self._width:
            self._columns = {min(column, width - 1) for column in self._columns}
            self._columns.add(advance(0, self._line, width))
            self._width = width

    def _render(self, segments: Iterable[Segment]) -> list[str]:
        system = COLOR_SYSTEMS.get(self._console.color_system or "")
        no_color = self._console.no_color
        return [render(segment, system, no_color=no_color) for segment in segments]

    def _write(self, *parts: str) -> None:
        self._console.file.write("".join(parts))
        self._console.file.flush()

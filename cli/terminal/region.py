"""Text that can be read while it grows, with a panel redrawn below it.

A paragraph is redrawn, its words wrapped, until it ends; then it is written once, unwrapped, so that the terminal
itself wraps it, scrolls it and joins it when it is copied. Between frames the cursor waits, hidden, where the open
paragraph begins: all below is redrawn, so that erasing downwards removes every trace of it, whatever a resize made of
its lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from rich.console import COLOR_SYSTEMS, Console
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.terminal.wrapping import Paragraph, Row, render, width_to_read

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"  # terminals that know it show a frame at once
WRAP_OFF, WRAP_ON = "\x1b[?7l", "\x1b[?7h"
ERASE_BELOW = "\x1b[J"
ERASE_ALL = f"\x1b[2K\x1b[2G{ERASE_BELOW}\r"  # from the top left corner, ERASE_BELOW makes tmux keep what it erases
NEW_LINE = "\r\n"


class Region:
    """Writes frames to one terminal."""

    def __init__(self, console: Console):
        self._console = console
        self._paragraph = Paragraph()  # shown, but not yet written for good

    def draw(self, text: Iterable[Segment], rows: Sequence[Row]) -> None:
        """Add text, and show these rows below it in place of the last ones."""
        width, height = size(self._console)
        written = self._take(text)
        rows = rows[: height - 1]
        lines = [*self._open_lines(width_to_read(width), height - len(rows)), *rows]
        drawn = NEW_LINE.join(map(self._render, lines))
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        self._write(BEGIN, HIDE, ERASE_ALL, *written, WRAP_OFF, drawn, WRAP_ON, "\r", up, END)

    def finish(self, text: Iterable[Segment], rows: Sequence[Row]) -> None:
        """The last frame; the cursor goes below it."""
        written = [*self._take(text), self._render(self._paragraph.segments)]
        end = NEW_LINE if rows or self._paragraph.segments else ""
        self._paragraph = Paragraph()
        drawn = [NEW_LINE + self._render(row) for row in rows]
        self._write(BEGIN, ERASE_ALL, *written, WRAP_OFF, *drawn, WRAP_ON, end, SHOW, END)

    def leave(self, text: Sequence[Segment] = ()) -> None:
        """Take the panel away and leave the text, on a terminal that may be gone."""
        with contextlib.suppress(OSError, ValueError):
            self.finish(text, ())

    def _take(self, text: Iterable[Segment]) -> list[str]:
        """Add text to the open paragraph; the paragraphs that it ends, as they are written."""
        ascii_only = self._console.options.ascii_only
        written: list[str] = []
        for piece, style, _ in text:
            first, *further = visible(piece, ascii_only=ascii_only).split("\n")
            self._paragraph.add(first, style)
            for part in further:
                written.append(self._render(self._paragraph.segments) + NEW_LINE)
                self._paragraph = Paragraph()
                self._paragraph.add(part, style)
        return written

    def _open_lines(self, width: int, room: int) -> list[Row]:
        """The end of the open paragraph, in the lines there are."""
        lines = self._paragraph.rows(width)
        if len(lines) <= room or room < 2:
            return lines[-room:]
        ellipsis = "..." if self._console.options.ascii_only else "…"
        above = len(lines) - room + 1
        return [[Segment(f"{ellipsis} {above:,} more above"[:width], Style(dim=True))], *lines[1 - room :]]

    def _render(self, segments: Iterable[Segment]) -> str:
        system = COLOR_SYSTEMS.get(self._console.color_system or "")
        joined = Segment.simplify(segments)
        return "".join([render(segment, system, no_color=self._console.no_color) for segment in joined])

    def _write(self, *parts: str) -> None:
        self._console.file.write("".join(parts))
        self._console.file.flush()

"""Where lines end: words wrapped at spaces, for text that is redrawn, apart from any terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.terminal import visible

Row = list[Segment]

READABLE = 100  # columns: longer lines are hard to read
WIDEST = 140  # columns of tables that are drawn: beyond, an eye loses its row
MARGIN, ROOMY = 4, 48  # cells right of what is redrawn; columns from which on there is room for them
TAB = 8
BLANKS = " \t"
JOINER = "\u200d"  # makes one sign of those on both sides
NOT_FIRST, NOT_LAST = ("Pe", "Pf", "Po"), ("Ps", "Pi")  # punctuation that closes, or opens


def width_to_draw(width: int) -> int:
    """Cells that what is redrawn may take: rows that end short of the edge stay whole while a window is dragged
    narrower, where a terminal that wraps anew would push what does not fit into its scrollback."""
    return width - MARGIN if width >= ROOMY else width


def width_of_tables(width: int) -> int:
    """Cells that tables over a whole screen may take."""
    return min(width, WIDEST)


def width_to_read(width: int) -> int:
    """Cells that lines of text, and the rules above them, may take: no more than can be read."""
    return min(width_to_draw(width), READABLE)


def line_starts(text: str, width: int) -> list[int]:
    """Where each line of a paragraph begins, none wider than `width` cells but for blanks at its end.

    A line ends at blanks or beside a wide character; within a word only where the word alone is too wide. What is
    added to the text later moves no line but the last one.
    """
    starts, column, place, before = [0], 0, 0, ""
    for index, char in enumerate(text):
        if char in BLANKS:
            column += TAB - column % TAB if char == "\t" else 1
            before = char
            continue
        cells = get_character_cell_size(char)
        if cells and before and may_break(before, char):
            place = index
        while cells and column + cells > width and index > starts[-1]:
            starts.append(place if place > starts[-1] else index)
            column = sum(map(get_character_cell_size, text[starts[-1] : index]))
        column += cells
        before = char if cells or char == JOINER else before
    return starts


def may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters."""
    if before in BLANKS:
        return True
    is_wide = 2 in (get_character_cell_size(before), get_character_cell_size(after))
    return (
        is_wide
        and before != JOINER
        and unicodedata.category(after) not in NOT_FIRST
        and unicodedata.category(before) not in NOT_LAST
    )


def wrap(segments: Sequence[Segment], width: int) -> list[Row]:
    """A paragraph in lines; together they are the whole text."""
    cuts = line_starts("".join(segment.text for segment in segments), width)[1:]
    rows, at = [Row()], 0
    for text, style, _ in segments:
        begin = 0
        while cuts and cuts[0] < at + len(text):
            end = cuts.pop(0) - at
            rows[-1].append(Segment(text[begin:end], style))
            rows.append(Row())
            begin = end
        rows[-1].append(Segment(text[begin:], style))
        at += len(text)
    return rows


def on_screen(row: Row) -> Row:
    """A line as it is drawn: tabs as blanks, no blanks at its end."""
    text = "".join(segment.text for segment in row)
    room, column, drawn = len(text.rstrip(BLANKS)), 0, list[Segment]()
    for text, style, _ in row:
        part = ""
        for char in text[:room]:
            cells = TAB - column % TAB if char == "\t" else get_character_cell_size(char)
            part += " " * cells if char == "\t" else char
            column += cells
        drawn.append(Segment(part, style))
        room = max(0, room - len(text))
    return drawn


class Paragraph:
    """Text since the last line break. Lines that are full stay as they are: only the last is wrapped again."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self._full: list[Row] = []
        self._last: Row = []
        self._width = 0

    def add(self, text: str, style: Style | None) -> None:
        if text:
            self.segments.append(Segment(text, style))
            self._last.append(self.segments[-1])

    def rows(self, width: int) -> list[Row]:
        """Its lines, as they are drawn; at least one."""
        if width != self._width:
            self._full, self._last, self._width = [], self.segments[:], width
        *full, self._last = wrap(self._last, width)
        self._full += map(on_screen, full)
        return [*self._full, on_screen(self._last)]


def render(segment: Segment, system: ColorSystem | None, *, no_color: bool) -> str:
    """A segment with its escape codes, and no others."""
    style, text = segment.style or Style.null(), visible(segment.text)
    if system is None:
        return text
    return (style.without_color if no_color else style).render(text, color_system=system)

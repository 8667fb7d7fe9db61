"""The tree of branches: what each stretch between two forks says, and how probable the text up to its end is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.widgets.widget import BOLD, CHOSEN, DIM, PLAIN, Glyphs, Row, Widget, cell, one_line

NUMBER = 9  # cells of a log-probability


@dataclass(frozen=True, slots=True)
class BranchRow:
    """One stretch of a text, without a fork in it; its numbers are those of the whole text up to its end.

    `lines` tells for each fork before it whether another way follows below.
    """

    text: str
    tokens: int
    logprob: float
    per_token: float | None
    lines: tuple[bool, ...] = ()
    forked: bool = False  # the first after a fork
    marked: bool = False
    here: bool = False


@dataclass(frozen=True, slots=True)
class TreeTable(Widget):
    """At most `limit` branches, the highlighted one among them."""

    branches: Sequence[BranchRow]
    highlighted: int
    limit: int = 1000

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        first = min(max(0, self.highlighted - self.limit // 2), max(0, len(self.branches) - self.limit))
        shown = range(first, min(len(self.branches), first + self.limit))
        return [heading(width), *(self.row(index, width, glyphs) for index in shown)]

    def row(self, index: int, width: int, glyphs: Glyphs) -> Row:
        branch = self.branches[index]
        room = text_room(width)
        guides = branch_lines(branch, glyphs)[-room // 2 :] if room > 1 else ""
        style = BOLD + CHOSEN if branch.here else PLAIN
        if index == self.highlighted:
            style += Style(reverse=True)
        text = ends_of(on_one_line(branch.text, glyphs), room - cell_len(guides), glyphs)
        padding = " " * (room - cell_len(guides) - cell_len(text))
        return [
            Segment(f" {glyphs.marker if index == self.highlighted else ' '} ", CHOSEN + BOLD),
            Segment(guides, DIM),
            Segment(text, style),
            Segment(f"{padding} {sign(branch, glyphs)}", BOLD),
            *numbers(branch, width, glyphs),
        ]


def text_room(width: int) -> int:
    """Cells for lines and text: what the marker, the sign and the numbers leave."""
    return max(1, width - 3 - 2 - sum(cells for _, cells in columns(width)))


def columns(width: int) -> list[tuple[str, int]]:
    """The numbers that there is room for, with their cells."""
    if width < 32:
        return [("logprob", NUMBER)]
    return [("tokens", 7)] * (width >= 60) + [("logprob", NUMBER), ("a token", 9 if width >= 60 else 8)]


def heading(width: int) -> Row:
    names = (cell(name, cells, DIM, right=True) for name, cells in columns(width))
    return [Segment("   "), cell("text", text_room(width) + 2, DIM), *names]


def numbers(branch: BranchRow, width: int, glyphs: Glyphs) -> Row:
    texts = {"tokens": f"{branch.tokens:,}", "logprob": glyphs.none, "a token": glyphs.none}
    if branch.per_token is not None:
        texts |= {"logprob": f"{branch.logprob:.2f}", "a token": f"{branch.per_token:.2f}"}
    return [cell(texts[name], cells, right=True, glyphs=glyphs) for name, cells in columns(width)]


def sign(branch: BranchRow, glyphs: Glyphs) -> str:
    """Whether the text stands at its end, or was marked there."""
    if branch.here:
        return "@" if glyphs.ascii_only else "●"
    return ("*" if glyphs.ascii_only else "◆") if branch.marked else " "


def branch_lines(branch: BranchRow, glyphs: Glyphs) -> str:
    """The lines that lead from the forks before it to this row."""
    down, side, last = ("| ", "|-", "`-") if glyphs.ascii_only else ("│ ", "├─", "└─")
    drawn = "".join(down if more else "  " for more in branch.lines[:-1])
    if not branch.lines:
        return drawn
    more = branch.lines[-1]
    return drawn + ((side if more else last) if branch.forked else (down if more else "  "))


def on_one_line(text: str, glyphs: Glyphs) -> str:
    return one_line(text, glyphs).strip(" ") or "(nothing yet)"


def ends_of(text: str, room: int, glyphs: Glyphs) -> str:
    """The text, or as much of its beginning and its end as there is room for."""
    if cell_len(text) <= room:
        return text
    if room < 3:
        return cells_of(text, room)
    back = cells_of(text[::-1], (room - 1) // 3)
    return cells_of(text, room - 1 - cell_len(back)) + glyphs.ellipsis + back[::-1]


def cells_of(text: str, room: int) -> str:
    """As many of the first characters as fit."""
    cells = list(accumulate(map(cell_len, text)))
    return text[: bisect_right(cells, room)]

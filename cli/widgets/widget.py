"""What all widgets share: rows of segments that fit a width, and the glyphs to draw them with."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.console import drawn_width
from tokenglass.cli.terminal.terminal import visible

Row = list[Segment]

PLAIN = Style.null()
DIM = Style(dim=True)
BOLD = Style(bold=True)
BAR = Style(color="cyan")
CHOSEN = Style(color="green")  # the same green wherever the chosen token is meant


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters to draw with; `eighths` fill a cell from the left, `heights` from below."""

    ascii_only: bool
    eighths: str
    heights: str
    track: str
    rule: str
    axis: str
    marker: str
    arrow: str
    none: str
    ellipsis: str
    ends: str
    draw: str


UNICODE = Glyphs(False, "▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "░", "─", " ", "▸", "→", "–", "…", "├┤", "▼")
ASCII = Glyphs(True, "#", "_.-=+*#@", "-", "-", "|", ">", "->", "-", "~", "||", "v")


class Widget(ABC):
    """Data in, rows out; Rich prints it like any renderable."""

    __slots__ = ()

    @abstractmethod
    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        """Rows of at most `width` cells."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for row in self.rows(drawn_width(options.max_width), glyphs_of(options)):
            yield from row
            yield Segment.line()


def glyphs_of(options: ConsoleOptions) -> Glyphs:
    return ASCII if options.ascii_only else UNICODE


def cell(text: str, width: int, style: Style = PLAIN, *, right: bool = False, glyphs: Glyphs = UNICODE) -> Segment:
    """Text in exactly `width` cells, cut with an ellipsis where it is longer."""
    length = cell_len(text)
    if length > width:
        text = set_cell_size(text, max(0, width - 1)) + (glyphs.ellipsis if width > 0 else "")
        length = cell_len(text)
    padding = " " * (width - length)
    return Segment(padding + text if right else text + padding, style)


def crop(row: Row, width: int, glyphs: Glyphs) -> Row:
    """The row, cut with an ellipsis where it is longer than `width`."""
    if sum(segment.cell_length for segment in row) <= width:
        return row
    lines = Segment.split_and_crop_lines(row, max(0, width - 1), pad=False, include_new_lines=False)
    return [*next(iter(lines), []), Segment(glyphs.ellipsis if width > 0 else "")]


def one_line(text: str, glyphs: Glyphs) -> str:
    """Text in a row of its own; line breaks and tabs as signs."""
    newline, tab = ("\\n", "\\t") if glyphs.ascii_only else ("↵", "⇥")
    return visible(text, ascii_only=glyphs.ascii_only).replace("\n", newline).replace("\t", tab)


def bar(share: float, width: int, glyphs: Glyphs) -> str:
    """A share of 1 as a bar, in eighths of a cell where the glyphs have them; never empty for more than nothing."""
    steps, share = len(glyphs.eighths), min(1.0, share) if share > 0 else 0.0  # a trace may hold any number
    filled = min(width * steps, max(round(share * width * steps), 1 if share > 0 else 0))
    whole, rest = divmod(filled, steps)
    return glyphs.eighths[-1] * whole + (glyphs.eighths[rest - 1] if rest else "")


def bar_leftwards(share: float, width: int, glyphs: Glyphs) -> str:
    """The same from the right: in the eighth, the half and the whole of a cell that there are glyphs for."""
    if glyphs.ascii_only:
        return bar(share, width, glyphs)
    share = min(1.0, share) if share > 0 else 0.0
    whole, rest = divmod(share * width, 1)
    part = "█" if rest >= 0.75 else "▐" if rest >= 0.25 else "▕" if rest > 0 and (rest >= 0.06 or not whole) else ""
    return part + "█" * int(whole)


def gauge(share: float, width: int, glyphs: Glyphs, style: Style) -> Row:
    """A bar on a track."""
    filled = bar(share, width, glyphs)
    return [Segment(filled, style), Segment(glyphs.track * (width - len(filled)), DIM)]


def curve(values: Sequence[float], width: int, glyphs: Glyphs) -> str:
    """Values from 0 up as a line of small columns, evenly picked where there are more than `width`."""
    if not values:
        return ""
    width = min(width, len(values))
    picked = [values[(index + 1) * len(values) // width - 1] for index in range(width)]
    top, highest = max(picked), len(glyphs.heights) - 1
    shares = [
        min(1.0, value / top) if top > 0 and value > 0 else 0.0 for value in picked
    ]  # a trace may hold any number
    return "".join(glyphs.heights[round(share * highest)] for share in shares)


def label_fields(label: str, fields: Sequence[Row], width: int, glyphs: Glyphs, gap: int = 3) -> list[Row]:
    """A label and fields beside it, continued on further rows where they do not fit in one."""
    wide = width >= 60
    first = max(len(label) + 2, 8) if wide else len(label) + 2 if label else 1
    further = 8 if wide else 1
    rows: list[Row] = [[cell(f" {label}", first, DIM)]]
    used = start = first
    for field in fields:
        length = sum(segment.cell_length for segment in field)
        if used > start and used + gap + length > width:
            rows.append([Segment(" " * further)])
            used = start = further
        elif used > start:
            rows[-1].append(Segment(" " * gap))
            used += gap
        rows[-1].extend(field)
        used += length
    return [crop(row, width, glyphs) for row in rows]


def probability(logprob: float | None) -> float | None:
    """What a log-probability means; None where it was not reported, or is none."""
    return None if logprob is None or math.isnan(logprob) else math.exp(min(0.0, logprob))


def percent(share: float | None, glyphs: Glyphs = UNICODE) -> str:
    """A share as a percentage of one decimal; what rounds to nothing or to all is told apart from it."""
    if share is None or math.isnan(share):
        return glyphs.none
    if 0 < share < 0.0005:
        return "<0.1 %"
    return ">99.9 %" if 0.9995 <= share < 1 else "100 %" if share == 1 else f"{share:.1%}".replace("%", " %")

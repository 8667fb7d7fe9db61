"""A given text, each token marked by how many bits it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.widgets.token_text import Ramp, ramp_of, ranges
from tokenglass.cli.widgets.widget import DIM, Glyphs, Row, Widget, glyphs_of, label_fields
from tokenglass.model.measuring.scoring import GivenText, surprise
from tokenglass.model.records.steps import Choice

BITS = (1.0, 4.0, 8.0)  # from which on a token is of the next level
LETTERS = " abc"
LONGEST_LINE = 10_000  # characters that are drawn at once


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the text that has a mark of its own."""

    text: str
    bits: float | None  # None: not scored

    @property
    def level(self) -> int:
        return 0 if self.bits is None else sum(self.bits >= least for least in BITS)


def parts_of(content: GivenText, choices: Iterable[Choice]) -> Iterator[Part]:
    """The text cut where its tokens end; those that share a character are one part, and their bits add up."""
    bits: float | None = None
    for choice in choices:
        if choice.position < content.added:
            continue
        if choice.logprob is not None:
            bits = (bits or 0.0) + surprise(choice.logprob)
        if text := content.span(choice.position):
            yield Part(text, bits)
            bits = None


def lines_of(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The parts of one line after the other, as they come; the end of a line is a mark where it surprises."""
    line: list[Part] = []
    length = 0
    for part in parts:
        *ended, rest = part.text.split("\n")
        for text in ended:
            yield [*line, Part(text + ("\n" if part.level else ""), part.bits)]
            line, length = [], 0
        line.append(Part(rest, part.bits))
        length += len(rest)
        if length > LONGEST_LINE:
            yield line
            line, length = [], 0
    if length:
        yield line


def drawn_line(line: Sequence[Part], console: Console) -> RenderableType:
    """One line of the text, folded at words, or with letters in a row below."""
    styles, glyphs = ramp_of(console), glyphs_of(console.options)
    if styles is None:
        return LetteredLine(line)
    text = Text(overflow="fold")
    for part in line:
        style = styles[part.level]
        hidden = part.level and part.text.isspace()  # a colour needs ink
        text.append(printable(part.text, glyphs), style + Style(underline=True) if hidden else style)
    return text


def printable(text: str, glyphs: Glyphs) -> str:
    """What a terminal may get of the text, in one row."""
    safe = visible(text, ascii_only=glyphs.ascii_only)
    return safe.replace("\n", "\\n" if glyphs.ascii_only else "↵").replace("\t", "    ")


@dataclass(frozen=True, slots=True)
class LetteredLine(Widget):
    """A line of the text in rows, each with a row of letters below the tokens that surprise."""

    line: Sequence[Part]

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        rows: list[Row] = []
        text, marks, used = "", "", 0
        for part in self.line:
            for char in printable(part.text, glyphs):
                cells = cell_len(char)
                if used + cells > width:
                    rows += drawn_rows(text, marks)
                    text, marks, used = "", "", 0
                text, marks, used = text + char, marks + LETTERS[part.level] * cells, used + cells
        return rows + drawn_rows(text, marks)


def drawn_rows(text: str, marks: str) -> list[Row]:
    below: list[Row] = [[Segment(marks.rstrip(), DIM)]] if marks.strip() else []
    return [[Segment(text)], *below]


@dataclass(frozen=True, slots=True)
class SurpriseLegend(Widget):
    """What the marks mean, each range in its own; without styles the letters."""

    ramp: Ramp | None

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        labels = ranges(BITS, "bits", glyphs)
        if self.ramp is None:
            fields = [[Segment(f"{letter} {text}")] for letter, text in zip(LETTERS[1:], labels[1:], strict=True)]
            return label_fields("marks", fields, width, glyphs, gap=2)
        fields = [[Segment(text, style)] for text, style in zip(labels, self.ramp, strict=True)]
        return label_fields("text", fields, width, glyphs, gap=2)

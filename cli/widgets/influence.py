"""The text before a choice, each token coloured by what hiding it does to the chosen token."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.cells import cell_len, get_character_cell_size
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.widgets.widget import BOLD, CHOSEN, DIM, PLAIN, Glyphs, Row, Widget, label_fields
from tokenglass.model.inspection.records import Effect, Flow

MUCH, SOME, AGAINST = 0.5, 0.9, 1.1  # of the chosen token's probability is left when a position is hidden
LEVELS = (DIM, Style(color="yellow"), Style(color="yellow", bold=True, reverse=True), Style(color="magenta"))
LEVELS_WITHOUT_COLOR = (PLAIN, Style(underline=True), Style(bold=True, reverse=True), Style(italic=True, dim=True))
LETTERS = " bAx"  # below the text, where there are no styles at all


def level(effect: Effect | None) -> int:
    """0: little changes, 1: hiding it costs the chosen token some of its probability, 2: much; 3: it gains by it."""
    if effect is None:
        return 0
    left = math.exp(min(effect.logprob_change, 1.0))
    return 2 if left <= MUCH else 1 if left <= SOME else 3 if left >= AGAINST else 0


@dataclass(frozen=True, slots=True)
class InfluenceText(Widget):
    """At most `limit` lines, the last of them ending with the chosen token; `styles` "none" puts letters below."""

    flow: Flow
    styles: str = "color"  # color, attributes or none
    limit: int = 1000

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        lines: list[list[tuple[str, int]]] = [[]]  # (character, level), -1 for the chosen token
        used = 0
        for text, shade in self.tokens_with_levels(glyphs):
            if used + cell_len(text) > width - 2 >= cell_len(text):  # a token that fits in a line is not broken
                lines.append([])
                used = 0
            for char in text:
                cells = 0 if char == "\n" else get_character_cell_size(char)
                if char == "\n" or used + cells > width - 2:
                    lines.append([])
                    used = 0
                if char != "\n":
                    lines[-1].append((char, shade))
                    used += cells
        cut = len(lines) > self.limit
        rows: list[Row] = []
        for index, line in enumerate(lines[-self.limit :]):
            first = glyphs.ellipsis[0] if cut and index == 0 else " "
            rows += self.line(first, line)
        return rows

    def tokens_with_levels(self, glyphs: Glyphs) -> list[tuple[str, int]]:
        """Tokens as text with their levels; a newline is seen before it breaks the line."""
        mark = "\\n" if glyphs.ascii_only else "↵"
        pieces = [(position.token.piece, level(position.direct)) for position in self.flow.positions]
        return [
            (visible(piece.decode("utf-8", "replace"), ascii_only=glyphs.ascii_only).replace("\n", f"{mark}\n"), shade)
            for piece, shade in [*pieces, (self.flow.chosen.piece, -1)]
        ]

    def line(self, first: str, line: list[tuple[str, int]]) -> list[Row]:
        text = [Segment(first, DIM), *(Segment(char.replace("\t", " "), self.style(shade)) for char, shade in line)]
        row = list(Segment.simplify(text))
        if self.styles != "none":
            return [row]
        below = "".join(
            ("^" if shade < 0 else LETTERS[shade]) * get_character_cell_size(char) for char, shade in line
        ).rstrip()
        return [row, [Segment(f" {below}")]] if below else [row]

    def style(self, shade: int) -> Style:
        if self.styles == "none":
            return PLAIN
        if shade < 0:
            return CHOSEN + BOLD + (PLAIN if self.styles == "color" else Style(underline=True, reverse=True))
        return (LEVELS if self.styles == "color" else LEVELS_WITHOUT_COLOR)[shade]


@dataclass(frozen=True, slots=True)
class InfluenceLegend(Widget):
    """What the colours mean, each word in its own."""

    styles: str = "color"

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        known = LEVELS if self.styles == "color" else LEVELS_WITHOUT_COLOR
        words = ("about the same", "down a tenth or more", "halved or worse", "up a tenth or more")
        if width < 60:
            words = ("same", "down", "halved", "up")
        fields: list[Row] = []
        for number in (2, 1, 0, 3):
            letter = LETTERS[number].strip()
            prefix = f"{letter} " if self.styles == "none" and letter else ""
            if self.styles == "none" and not letter:
                continue
            style = PLAIN if self.styles == "none" else known[number]
            fields.append([Segment(prefix + words[number], style)])
        return label_fields("without", fields, width, glyphs, gap=2)

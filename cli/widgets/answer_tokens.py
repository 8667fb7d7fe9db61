"""The tokens of an answer in columns, each with its raw and its final probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.widget import DIM, Glyphs, Row, Widget, cell, percent, probability
from tokenglass.model.records.steps import Choice

CELLS = 38  # of one column
NUMBER, SHARE = 5, 8


@dataclass(frozen=True, slots=True)
class AnswerTokens(Widget):
    """Read from left to right: number, token, raw and final probability."""

    choices: Sequence[Choice]

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        columns = max(1, min(len(self.choices), width // CELLS))
        cells = [self.token(number, choice, width, glyphs) for number, choice in enumerate(self.choices, start=1)]
        heading = [
            cell("", NUMBER),
            cell("token", self.room(width), DIM),
            *(cell(name, SHARE, DIM, right=True) for name in ("raw", "final")),
        ]
        return [
            space_cells([heading] * columns),
            *(space_cells(cells[start : start + columns]) for start in range(0, len(cells), columns)),
        ]

    def room(self, width: int) -> int:
        """Cells for the token itself."""
        return max(4, min(width, CELLS) - NUMBER - 2 * SHARE - 3)

    def token(self, number: int, choice: Choice, width: int, glyphs: Glyphs) -> Row:
        piece = visible_piece(choice.piece, ascii_only=glyphs.ascii_only)
        shares = (probability(choice.logprob), choice.prob)
        return [
            cell(f"{number:>{NUMBER - 1}} ", NUMBER, DIM),
            cell(piece, self.room(width), glyphs=glyphs),
            *(cell(percent(share, glyphs), SHARE, right=True) for share in shares),
        ]


def space_cells(cells: Sequence[Row]) -> Row:
    """Columns with a gap between them."""
    row = list(cells[0])
    for further in cells[1:]:
        row += [Segment("   "), *further]
    return row

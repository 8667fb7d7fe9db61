"""Points in a plane, each with a letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment

from tokenglass.cli.widgets.widget import BAR, BOLD, DIM, Glyphs, Row, Widget, crop

HEIGHT = 11  # rows between the axes
MOST = 64  # columns between the axes
LEAST = 12


@dataclass(frozen=True, slots=True)
class Point:
    mark: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Plot(Widget):
    """Points over two axes that begin where the points do; a level is a dotted line across.

    A point that another one covers stands in the next free place to its right, or else to its left.
    """

    x_title: str
    y_title: str
    points: Sequence[Point]
    level: float | None = None
    level_title: str = ""

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        xs = [point.x for point in self.points]
        ys = [point.y for point in self.points] + ([] if self.level is None else [self.level])
        labels = [f"{max(ys):.2f}", f"{min(ys):.2f}"]
        margin = max(map(len, labels))
        columns = min(MOST, width - margin - 3)
        if columns < LEAST:
            return []
        grid: dict[tuple[int, int], Segment] = {}
        if self.level is not None:
            line = cell_of(self.level, min(ys), max(ys), HEIGHT)
            grid = {(line, column): Segment("·" if not glyphs.ascii_only else ".", DIM) for column in range(columns)}
        taken: set[tuple[int, int]] = set()
        for point in self.points:
            row, column = cell_of(point.y, min(ys), max(ys), HEIGHT), cell_of(point.x, min(xs), max(xs), columns)
            aside = [*range(column, columns), *range(column - 1, -1, -1)]
            column = next((free for free in aside if (row, free) not in taken), column)
            taken.add((row, column))
            grid[row, column] = Segment(point.mark, BAR)
        wall = "|" if glyphs.ascii_only else "│"
        drawn: list[Row] = [crop([Segment(self.y_title, BOLD)], width, glyphs)]
        for row in reversed(range(HEIGHT)):
            label = labels[0] if row == HEIGHT - 1 else labels[1] if row == 0 else ""
            end = max((column + 1 for line, column in grid if line == row), default=0)
            cells = [grid.get((row, column), Segment(" ")) for column in range(end)]
            drawn.append([Segment(f"{label:>{margin}} {wall}{' ' * bool(end)}", DIM), *cells])
        drawn.append([Segment(" " * (margin + 1) + glyphs.rule * (columns + 2), DIM)])
        ends = f"{min(xs):,.0f}", f"{max(xs):,.0f}"
        middle = self.x_title.center(columns - len(ends[0]) - len(ends[1]))
        drawn.append(crop([Segment(" " * (margin + 3) + ends[0] + middle + ends[1])], width, glyphs))
        if self.level is not None:
            drawn.append(crop([Segment(" " * (margin + 3) + self.level_title, DIM)], width, glyphs))
        return drawn


def cell_of(value: float, low: float, high: float, cells: int) -> int:
    """Which of `cells` from low to high holds a value; the middle one where they are the same."""
    return round((value - low) / (high - low) * (cells - 1)) if high > low else cells // 2

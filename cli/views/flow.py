"""What made each token of a text: a screen to walk along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.segment import Segment

from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.screen import Screen
from tokenglass.cli.terminal.session import POLL, Key, Session
from tokenglass.cli.terminal.wrapping import width_of_tables
from tokenglass.cli.widgets.flow_grid import FlowGrid
from tokenglass.cli.widgets.flow_layers import FlowLayers
from tokenglass.cli.widgets.flow_page import FlowHead, styles_of
from tokenglass.cli.widgets.flow_parts import FlowParts
from tokenglass.cli.widgets.influence import InfluenceLegend, InfluenceText
from tokenglass.cli.widgets.widget import BOLD, DIM, Glyphs, Row, crop, glyphs_of
from tokenglass.model.inspection.records import Flow

TABLES: dict[str, type[FlowGrid | FlowLayers | FlowParts]] = {
    "tokens": FlowGrid,
    "layers": FlowLayers,
    "added up": FlowParts,
}


@dataclass(frozen=True, slots=True)
class FlowView:
    """Walks along the positions 1 to `last`; `read` finds out about one of them."""

    console: Console
    read: Callable[[int], Flow]
    last: int

    def show(self, position: int) -> None:
        """Until the user quits. Raises ParameterError where there is no terminal to read keys from."""
        with Walk(self, position) as walk:
            walk.run()


class Walk(Session):
    """Where the user is, and what is shown of it. What was read once is kept."""

    def __init__(self, view: FlowView, position: int):
        self._screen = Screen(view.console)
        super().__init__(self._screen, reads=True)
        self._view = view
        self._position = position
        self._table = 0
        self._explains = False
        self._flows: dict[int, Flow] = {}

    def run(self) -> None:
        while True:
            if self._position not in self._flows:
                self._flows[self._position] = self._view.read(self._position)
            self._draw()
            while (event := self.next_event(POLL)) is None:
                pass
            while isinstance(event, Key):  # all that was typed meanwhile, before anything is read again
                if event.name in ("q", "escape"):
                    return
                self._obey(event.name)
                event = self.next_event(0)

    def _obey(self, key: str) -> None:
        places = {"left": self._position - 1, "h": self._position - 1, "right": self._position + 1}
        places |= {"l": self._position + 1, "home": 1, "end": self._view.last}
        if key in places:
            self._position = min(max(places[key], 1), self._view.last)
        elif key in ("\t", "down", "j"):
            self._table = (self._table + 1) % len(TABLES)
        elif key in ("up", "k"):
            self._table = (self._table - 1) % len(TABLES)
        elif key in ("1", "2", "3"):
            self._table = int(key) - 1
        elif key == "?":
            self._explains = not self._explains

    def _draw(self) -> None:
        width, height = size(self._view.console)
        page = WalkPage(
            self._flows[self._position], self._table, self._explains, self._view.last, styles_of(self._view.console)
        )
        with self.frame():
            self._screen.draw(page.rows(width_of_tables(width), height, glyphs_of(self._view.console.options)), None)


@dataclass(frozen=True, slots=True)
class WalkPage:
    """One screen, never more than its height: sentences, the text, one of the tables, the keys."""

    flow: Flow
    table: int
    explains: bool
    last: int
    styles: str

    def rows(self, width: int, height: int, glyphs: Glyphs) -> list[Row]:
        text = InfluenceText(self.flow, self.styles, max(1, height // 6)).rows(width, glyphs)
        legend = InfluenceLegend(self.styles).rows(width, glyphs)[:1]
        head = FlowHead(self.flow).rows(width, glyphs)[: 3 if height >= 20 else 1]
        top = [*text, *legend, [], *head, self.tabs(width, glyphs)]
        bottom = self.keys(width, glyphs)
        room = max(0, height - len(top) - 1)
        rows = [*top, *self.table_rows(room, width, glyphs)]
        return [*(crop(row, width, glyphs) for row in rows[: max(0, height - 1)]), bottom]

    def table_rows(self, room: int, width: int, glyphs: Glyphs) -> list[Row]:
        """The table, with its explanation below where that was asked for or fits beside ten rows."""
        make = list(TABLES.values())[self.table]
        one = len(make(self.flow, 1, explained=False).rows(width, glyphs)) - 1
        words = len(make(self.flow, 1).rows(width, glyphs)) - one - 1
        explained = self.explains or room - one - words >= 10
        limit = max(2, room - one - 1 - (words if explained else 0))
        rows = make(self.flow, limit, explained=explained).rows(width, glyphs)[:room]
        return rows + [[] for _ in range(room - len(rows))]

    def tabs(self, width: int, glyphs: Glyphs) -> Row:
        row: Row = [Segment(glyphs.rule, DIM)]
        for number, name in enumerate(TABLES):
            here = number == self.table
            row.append(Segment(f" {number + 1} {name} ", BOLD if here else DIM))
            row.append(Segment(glyphs.rule, DIM))
        used = sum(segment.cell_length for segment in row)
        return crop([*row, Segment(glyphs.rule * max(0, width - used), DIM)], width, glyphs)

    def keys(self, width: int, glyphs: Glyphs) -> Row:
        arrows = "left right" if glyphs.ascii_only else "← →"
        words = {arrows: f"token {self.flow.position:,} of {self.last:,}", "tab": "table", "?": "explain", "q": "quit"}
        row: Row = [Segment(" ")]
        for key, word in words.items():
            row += [Segment(key, BOLD), Segment(f" {word}  ", DIM)]
        return crop(row, width, glyphs)

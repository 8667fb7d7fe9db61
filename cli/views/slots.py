"""The live view of many prompts: the slots with their texts, below the answers that are whole."""

from __future__ import annotations

import time

from rich.console import Console
from rich.segment import Segment

from tokenglass.cli.run.many.standing import Standing
from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.interrupts import Interrupt
from tokenglass.cli.terminal.region import Region
from tokenglass.cli.terminal.session import Session
from tokenglass.cli.terminal.wrapping import width_to_draw
from tokenglass.cli.widgets.panel import panel_height
from tokenglass.cli.widgets.slots import SlotPanel, SlotText
from tokenglass.cli.widgets.widget import DIM, Row, glyphs_of
from tokenglass.model.records.steps import Record, Step

MOMENT = 0.08  # seconds between two frames


class SlotsSession(Session):
    """Many prompts on one terminal: lines and messages stand above the slots, which are redrawn."""

    def __init__(self, console: Console, interrupt: Interrupt):
        self._region = Region(console)
        super().__init__(self._region, reads=False)
        self._console = console
        self._interrupt = interrupt
        self._slots: list[SlotText] = []
        self._places: dict[int, int] = {}  # of the texts in work, by their numbers
        self._unshown: list[Segment] = []
        self._title = self._note = ""
        self._drawn = 0.0

    def write(self, line: bytes) -> None:
        self._unshown.append(Segment(line.decode()))

    def tell(self, message: str) -> None:
        self._unshown.append(Segment(f"{message}\n", DIM))

    def show(self, record: Record, standing: Standing) -> None:
        """Take a record in, and draw where it is time for it."""
        if isinstance(record, Step):
            self._text(record.sequence, standing).add(record)
        elif record.sequence in self._places:
            self._slots[self._places.pop(record.sequence)].is_over = True
        if time.perf_counter() - self._drawn >= MOMENT:
            self._title = f"{standing.done:,}{'' if standing.total is None else f' of {standing.total:,}'} prompts"
            self._note = standing.stopping() if self._interrupt.is_set() else f"{standing.rate:,.0f} tok/s"
            self.redraw()
            self._drawn = time.perf_counter()

    def _text(self, number: int, standing: Standing) -> SlotText:
        """The text of that number; a new one takes the place of one that is over."""
        if number not in self._places:
            answer = standing.answers.open[number]
            new = SlotText(str(answer.asked.id), answer.prompt_tokens, answer.request.max_new_tokens)
            place = next((place for place, text in enumerate(self._slots) if text.is_over), len(self._slots))
            self._slots[place : place + 1] = [new]
            self._places[number] = place
        return self._slots[self._places[number]]

    def redraw(self) -> None:
        with self.frame():
            text, self._unshown = self._unshown, []
            self._region.draw(text, self._rows())

    def end(self) -> None:
        """The lines that are left, and nothing of the panel."""
        with self.frame():
            self._region.leave(self._unshown)

    def _rows(self) -> list[Row]:
        width, height = size(self._console)
        panel = SlotPanel(self._slots, self._title, self._note, panel_height(width, height))
        return panel.rows(width_to_draw(width), glyphs_of(self._console.options))

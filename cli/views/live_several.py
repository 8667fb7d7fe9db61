"""The live view of several texts: a panel with a row for each while they grow, all in full at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.segment import Segment

from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.wrapping import width_to_draw, width_to_read
from tokenglass.cli.views.live import LiveSession, LiveView
from tokenglass.cli.views.pace import MAX, Pace
from tokenglass.cli.views.seeking import Goal, Moment
from tokenglass.cli.widgets.beams import SeveralPanel
from tokenglass.cli.widgets.lines import Rule
from tokenglass.cli.widgets.panel import Size, panel_height
from tokenglass.cli.widgets.texts import Texts
from tokenglass.cli.widgets.widget import Row, glyphs_of
from tokenglass.model.records.steps import Finish, Record, Step
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace_writer import shorten

ENOUGH = 2  # candidates, to know a near-tie by


@dataclass(frozen=True, slots=True)
class SeveralLive:
    """Shows a run of several texts on a terminal; `shown` is how many beams are written in full at the end."""

    console: Console
    shown: int = 1
    panel: Size = "full"
    pace: Pace = MAX
    interrupt: threading.Event | None = None
    start: Goal | None = None  # what comes before is shown at once

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        with SeveralSession(self, run) as session:
            return session.run(records)


class SeveralSession(LiveSession):
    """One run of several texts on one terminal; a step of the pace is a pass, in which each text gets a token."""

    def __init__(self, view: SeveralLive, run: Run):
        super().__init__(
            LiveView(view.console, view.panel, pace=view.pace, interrupt=view.interrupt, start=view.start), run
        )
        self._whole = view.shown
        self._texts = Texts(run)
        self._records: list[Record] = []
        self._passes: list[int] = []  # how many records there were at the end of each pass but the newest
        self._tokens: list[int] = []  # of the longest text, likewise

    def run(self, records: Iterable[Record]) -> Finish:
        """Show the records until the last."""
        self._show_now(0)
        self._draw()
        for whole in records:
            record = shorten(whole, ENOUGH)
            if self._texts.begins_pass(record):
                self._end_pass(record)
            self._texts.add(record)
            if self._reads:
                self._records.append(record)
            if self._texts.is_pass_whole and self._wants_frame():
                self._draw()
        self._await_turn(self._texts.run_totals.finish)
        self._complete = self._texts.is_complete = True
        return self._texts.run_totals.finish

    def end(self) -> None:
        """All texts in full, each below a rule that names it, and the last frame."""
        width, _ = size(self._view.console)
        text = self._run.prompt
        for title, note, said in self._texts.whole(self._whole):
            (rule,) = Rule(title, note).rows(width_to_read(width), glyphs_of(self._view.console.options))
            self._unshown += [Segment("" if text.endswith("\n") else "\n"), *rule, Segment(f"\n{said}")]
            text = said or "\n"
        super().end()

    def _end_pass(self, record: Record) -> None:
        """The newest pass is whole: it stays on the screen until the record may be shown, which begins another."""
        if not self._texts.is_pass_whole and self._wants_frame():
            self._draw()
        self._await_turn(record)
        if self._can_wait:
            self._passes.append(len(self._records))
            self._tokens.append(self._texts.new_tokens)
        self._show_now(1 if isinstance(record, Step) and record.choices else 0)

    @property
    def _can_wait(self) -> bool:
        return self._texts.new_tokens > 0

    @property
    def _choice(self) -> None:
        return None

    @property
    def _num_past(self) -> int:
        return len(self._passes)

    def _moments(self, first: int) -> Iterator[Moment]:
        for number in range(first, self._num_past + 1):
            start, end = ([0, *self._passes, len(self._records)][number + place] for place in (0, 1))
            steps = [record for record in self._records[start:end] if isinstance(record, Step)]
            choices = [choice for step in steps for choice in step.choices]
            token = [*self._tokens, self._texts.new_tokens][number]
            yield Moment(choices, token, steps[-1].index if steps else -1)

    def _rows(self) -> list[Row]:
        """The panel, never lower than before."""
        width, height = size(self._view.console)
        if self._view.panel == "off":
            return []
        most = panel_height(width, height)
        if self._view.panel == "slim":
            most = min(most, 4)
        keys = self._keys() if self._reads and self._can_wait and not self._complete else None
        panel = SeveralPanel(self._texts_looked_at(), most, keys, self._behind)
        rows = panel.rows(width_to_draw(width), glyphs_of(self._view.console.options))
        if not self._complete:
            self._tallest = max(self._tallest, len(rows))
            rows += [[] for _ in range(self._tallest - len(rows))]
        return rows

    def _texts_looked_at(self) -> Texts:
        """The texts as they are, or as they were so many passes ago."""
        if not self._behind:
            return self._texts
        texts = Texts(self._run)
        for record in self._records[: self._passes[-self._behind]]:
            texts.add(record)
        return texts

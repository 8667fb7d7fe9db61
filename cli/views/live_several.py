"""The live view of several texts: a panel with a row for each while they grow, all in full at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.segment import Segment

from tokenglass.cli.terminal.console import size
from tokenglass.cli.views.live import LiveSession, LiveView
from tokenglass.cli.widgets.beams import SeveralPanel
from tokenglass.cli.widgets.lines import Rule
from tokenglass.cli.widgets.panel import Size, panel_height
from tokenglass.cli.widgets.texts import Texts
from tokenglass.cli.widgets.widget import Row, glyphs_of
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.run import Run


@dataclass(frozen=True, slots=True)
class SeveralLive:
    """Shows a run of several texts on a terminal; `shown` is how many beams are written in full at the end."""

    console: Console
    shown: int = 1
    panel: Size = "full"
    interrupt: threading.Event | None = None

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        with SeveralSession(self, run) as session:
            return session.run(records)


class SeveralSession(LiveSession):
    """One run of several texts on one terminal."""

    def __init__(self, view: SeveralLive, run: Run):
        super().__init__(LiveView(view.console, view.panel, interrupt=view.interrupt), run)
        self._shown = view.shown
        self._texts = Texts(run)

    def run(self, records: Iterable[Record]) -> Finish:
        """Show the records until the last."""
        self._draw()
        for record in records:
            self._texts.add(record)
            if time.perf_counter() >= self._due:
                self._draw()
        self._complete = self._texts.is_complete = True
        return self._texts.together.finish

    def end(self) -> None:
        """All texts in full, each below a rule that names it, and the last frame."""
        width, _ = size(self._view.console)
        text = self._run.prompt
        for title, note, said in self._texts.whole(self._shown):
            (rule,) = Rule(title, note).rows(width - 1, glyphs_of(self._view.console.options))
            self._unshown += [Segment("" if text.endswith("\n") else "\n"), *rule, Segment(f"\n{said}")]
            text = said or "\n"
        super().end()

    def _rows(self) -> list[Row]:
        """The panel, never lower than before."""
        width, height = size(self._view.console)
        if self._view.panel == "off":
            return []
        most = panel_height(width, height)
        if self._view.panel == "slim":
            most = min(most, 4)
        rows = SeveralPanel(self._texts, most).rows(width, glyphs_of(self._view.console.options))
        if not self._complete:
            self._tallest = max(self._tallest, len(rows))
            rows += [[] for _ in range(self._tallest - len(rows))]
        return rows

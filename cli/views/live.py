"""The live view: text flows as on any terminal, and a panel below it shows the newest step, or an earlier one."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment

from tokenglass.cli.terminal.console import make_console, size
from tokenglass.cli.terminal.region import Region
from tokenglass.cli.terminal.wrapping import width_to_draw
from tokenglass.cli.views.pace import MAX, Pace
from tokenglass.cli.views.seeking import Goal, Moment, Past, RereadPast
from tokenglass.cli.views.steered import SteeredSession
from tokenglass.cli.views.unfolding import Unfolding
from tokenglass.cli.views.view import Setting, View
from tokenglass.cli.widgets.panel import Panel, Progress, Size, panel_height
from tokenglass.cli.widgets.token_text import ColorBy, ramp_of, styled_token, token_style
from tokenglass.cli.widgets.widget import DIM, Row, glyphs_of
from tokenglass.model.records.steps import Choice, Finish, Record, Step, Totals
from tokenglass.model.runs.run import Run

if TYPE_CHECKING:
    from tokenglass.model.sampling.stages import ChoiceLog

INTERVAL = 0.05  # seconds between frames at least, while the run waits for them: 20 a second
SHARE = 0.04  # of the run's time that frames may take
LONGEST = 0.5  # seconds between frames on a terminal that is slow to write to
SHORTEST = 0.025  # seconds between frames while the run is ahead of what is shown


def make(setting: Setting) -> View:
    """For one text or several."""
    options, explainer = setting.options, setting.explainer
    console, pace = make_console(sys.stdout, color=options.color.value), Pace.of(options)
    if setting.search.is_several:
        from tokenglass.cli.views.live_several import SeveralLive

        return SeveralLive(console, setting.search.num_samples, options.panel.value, pace, setting.interrupt)
    view = LiveView(
        console,
        options.panel.value,
        options.color_by.value,
        pace,
        setting.interrupt,
        log=setting.log,
        has_stages=options.stages,
    )
    return view if explainer is None else replace(view, explain=explainer.explain, follow=explainer.take)


@dataclass(frozen=True, slots=True)
class LiveView:
    """Shows a run on a terminal, no faster than the pace; `q` sets `interrupt`."""

    console: Console
    panel: Size = "full"
    color_by: ColorBy = "none"
    pace: Pace = MAX
    interrupt: threading.Event | None = None
    explain: Callable[[Step], Step] | None = None  # adds the flow to a step that is drawn
    follow: Callable[[Step], None] | None = None  # called with every step, for `explain`
    reread: Callable[[int], Step | None] | None = None  # the step after so many others, of a run that is kept
    start: Goal | None = None  # what comes before is shown at once
    log: ChoiceLog | None = None  # what the choices were made of, where that is kept
    has_stages: bool = False  # from the start

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        """Raises ParameterError for a stepwise pace without a terminal to read keys from."""
        with LiveSession(self, run) as session:
            return session.run(records)


class LiveSession(SteeredSession):
    """One run on one terminal: what has come, and what of it is shown."""

    def __init__(self, view: LiveView, run: Run):
        is_timed = run.request.max_seconds is not None  # the clock would count the waits
        pace = MAX if view.pace.is_default and is_timed else view.pace
        self._region = Region(view.console)
        super().__init__(self._region, pace, view.interrupt, Unfolding(view.log, view.has_stages), view.start)
        self._view = view
        self._run = run
        self._ramp = ramp_of(view.console)
        self._unshown: list[Segment] = [Segment(run.prompt, DIM)]
        self._history: list[float] = []
        self._progress = Progress(run, Totals(), history=self._history)
        self._past = Past() if view.reread is None else RereadPast(view.reread)
        self._complete = False
        self._tallest = 0
        self._drawn = self._cost = 0.0  # when the last frame was begun, and the seconds it took
        self._due = 0.0  # when the next may come

    def run(self, records: Iterable[Record]) -> Finish:
        """Show the records until the last."""
        self._show_now(0)
        self._draw()
        for record in records:
            self._await_turn(record)
            if isinstance(record, Finish):
                if record.reason != "error":
                    self._explain()  # its panel stays
                self._progress = replace(self._progress, finish=record)
                self._unshown += self.segments(record)
                continue
            self._take(record)
            if self._wants_frame():
                self._draw()
        finish = self._progress.finish
        assert finish is not None, "records end with a Finish"
        self._complete = True
        return finish

    def end(self) -> None:
        """The last frame, its panel whole; after an error the text alone."""
        with self.frame():
            if self._complete:
                self._region.finish(self.text_to_leave(), self.rows_to_leave())
            else:
                self._region.leave(self.text_to_leave())

    def redraw(self) -> None:
        self._tallest = 0
        self._draw(explain=False)

    def rows_to_leave(self) -> list[Row]:
        """What stays below the text at the end."""
        return self._rows()

    def text_to_leave(self) -> list[Segment]:
        """What has come and was not written yet."""
        text, self._unshown = self._unshown, []
        return text

    def _take(self, step: Step) -> None:
        """Called for every token: as little as can be."""
        if self._view.follow is not None:
            self._view.follow(step)
        self._history.append(step.num_input_tokens if step.cache is None else step.cache.nbytes_used)
        if self._reads and self._progress.choice is not None:
            self._past.append(self._progress)
        self._progress = self._progress.plus(step)
        self._show_now(max(1, len(step.settled)) if step.choices else 0)
        self._unshown += self.segments(step)

    def segments(self, record: Record) -> list[Segment]:
        """What the text gets from a record."""
        if not record.text:
            return []
        choice = self._progress.choice
        if self._view.color_by != "none" and choice is not None and isinstance(record, Step):
            return styled_token(record.text, token_style(choice, self._view.color_by, self._ramp))
        return [Segment(record.text)]

    # what keys lead to

    @property
    def _can_wait(self) -> bool:
        return self._progress.choice is not None

    @property
    def _num_past(self) -> int:
        return len(self._past)

    def _moments(self, first: int) -> Iterator[Moment]:
        for progress in self._past.since(first):
            yield moment_of(progress)
        if first <= self._num_past:
            yield moment_of(self._progress)

    # frames

    def _wants_frame(self) -> bool:
        """Whether there is time for a frame. While the next step waits there is, but for a terminal that is slow."""
        now = time.perf_counter()
        wait = self._schedule.turn - now
        if self._seeks:
            return now >= self._due
        if self._paused or self._schedule.shown <= 1 or wait >= max(SHORTEST, self._cost):
            return True
        return now >= (self._drawn + max(SHORTEST, 2 * self._cost) if wait > 0 else self._due)

    def _draw(self, *, explain: bool = True) -> None:
        """A frame. A signal may come in the midst of the next pass, when the newest step can no longer be explained."""
        self._drawn = time.perf_counter()
        if explain:
            self._explain()
        with self.frame():
            self._region.draw(self.text_to_leave(), self._rows())
        now = time.perf_counter()
        self._cost = now - self._drawn
        self._due = now + min(LONGEST, max(INTERVAL, self._cost / SHARE))

    def _explain(self) -> None:
        """Add its flow to the newest step, unless that is there or the run has ended."""
        progress = self._progress
        if self._view.explain is not None and progress.step is not None and not (progress.flow or progress.finish):
            self._progress = replace(progress, flow=self._view.explain(progress.step).flow or ())

    @property
    def _choice(self) -> Choice | None:
        return self._looked_at.choice

    @property
    def _looked_at(self) -> Progress:
        """What the panel shows: the newest step, or one behind it."""
        if not self._behind:
            return self._progress
        progress = self._past[len(self._past) - self._behind]
        history = self._history[: progress.totals.forwards]
        return replace(progress, history=history, behind=self._behind)

    def _rows(self) -> list[Row]:
        """The panel, never lower than before: what is below the text does not jump."""
        width, height = size(self._view.console)
        panel = Panel(
            self._looked_at,
            self._view.panel,
            panel_height(width, height),
            self._view.color_by,
            self._ramp,
            self._keys() if self._reads and self._can_wait else None,
            self._highlighted,
            self._unfolding.tables(self._choice),
        )
        rows = panel.rows(width_to_draw(width), glyphs_of(self._view.console.options))
        if self._progress.finish is None:
            self._tallest = max(self._tallest, len(rows))
            rows += [[] for _ in range(self._tallest - len(rows))]
        return rows


def moment_of(progress: Progress) -> Moment:
    step = progress.step
    return Moment(() if step is None else step.settled, progress.totals.new_tokens, -1 if step is None else step.index)

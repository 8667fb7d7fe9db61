"""The live view: text flows as on any terminal, and a panel below it shows the newest step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.segment import Segment

from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.region import Region
from tokenglass.cli.terminal.session import POLL, Key, Session
from tokenglass.cli.widgets.panel import Panel, Progress, Size, panel_height
from tokenglass.cli.widgets.token_text import ColorBy, token_style
from tokenglass.cli.widgets.widget import DIM, Row, glyphs_of
from tokenglass.model.records.steps import CacheUsage, Choice, Finish, Record, Step, Totals
from tokenglass.model.runs.run import Run

INTERVAL = 0.05  # seconds between frames at least: 20 a second
SHARE = 0.04  # of the time that frames may take
LONGEST = 0.5  # seconds between frames on a terminal that is slow to write to
STEPPING = {"up": "k", "down": "j", "right": " ", "enter": " "}  # what keys mean to --pause


@dataclass(frozen=True, slots=True)
class LiveView:
    """Shows a run on a terminal; `pause` waits for a key after each token, and its `q` sets `interrupt`."""

    console: Console
    panel: Size = "full"
    color_by: ColorBy = "none"
    pause: bool = False
    interrupt: threading.Event | None = None
    explain: Callable[[Step], Step] | None = None  # adds the flow to a step that is drawn
    follow: Callable[[Step], None] | None = None  # called with every step, for `explain`

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        """Raises ParameterError for a pause without a terminal to read keys from."""
        with LiveSession(self, run) as session:
            return session.run(records)


class LiveSession(Session):
    """One run on one terminal: what has come, and what of it is shown."""

    def __init__(self, view: LiveView, run: Run):
        self._region = Region(view.console)
        super().__init__(self._region, reads=view.pause)
        self._view = view
        self._run = run
        self._colors = view.console.color_system is not None and not view.console.no_color
        self._unshown: list[Segment] = [Segment(run.prompt, DIM)]
        self._totals = Totals()
        self._choice: Choice | None = None
        self._flow: tuple[dict[str, float | str | None], ...] = ()
        self._step: Step | None = None
        self._block: list[Choice] = []  # settled by earlier passes over the same block
        self._cache: CacheUsage | None = None
        self._history: list[float] = []
        self._finish: Finish | None = None
        self._complete = False
        self._tallest = 0
        self._due = 0.0
        self._paused = view.pause
        self._highlighted: int | None = None

    def run(self, records: Iterable[Record]) -> Finish:
        """Show the records until the last."""
        self._draw()
        for record in records:
            if isinstance(record, Finish):
                self._finish = record
                self._unshown.append(Segment(record.text))
                continue
            self._take(record)
            if self._paused and record.choices:
                self._draw()
                self._wait()
            elif time.perf_counter() >= self._due or self._totals.new_tokens <= 1:
                self._draw()
        assert self._finish is not None, "records end with a Finish"
        self._complete = True
        return self._finish

    def end(self) -> None:
        """The last frame, its panel whole; after an error the text alone."""
        with self.frame():
            if self._complete:
                self._region.finish(self.text_to_leave(), self._rows())
            else:
                self._region.leave(self.text_to_leave())

    def redraw(self) -> None:
        self._tallest = 0
        self._draw(explain=False)

    def text_to_leave(self) -> list[Segment]:
        """What has come and was not written yet."""
        text, self._unshown = self._unshown, []
        return text

    def _take(self, step: Step) -> None:
        """Called for every token: as little as can be."""
        if self._view.follow is not None:
            self._view.follow(step)
        self._totals = self._totals.plus(step)
        self._cache = step.cache
        self._history.append(step.num_input_tokens if step.cache is None else step.cache.nbytes_used)
        if self._step is not None and self._step.block is not None:
            again = step.block is not None and step.block.start == self._step.block.start
            self._block = [*self._block, *self._step.settled] if again else []
        self._step = step
        self._flow = step.flow or self._flow
        if step.choices:
            self._choice = next(reversed(step.settled), self._choice)
        if step.text:
            style = None
            if self._view.color_by != "none" and self._choice is not None:
                style = token_style(self._choice, self._view.color_by, colors=self._colors)
            self._unshown.append(Segment(step.text, style))

    def _draw(self, *, explain: bool = True) -> None:
        """A frame. A signal may come in the midst of the next pass, when the newest step can no longer be explained."""
        started = time.perf_counter()
        if explain and self._view.explain is not None and self._step is not None and self._finish is None:
            self._flow = self._view.explain(self._step).flow or self._flow
        with self.frame():
            self._region.draw(self.text_to_leave(), self._rows())
        now = time.perf_counter()
        self._due = now + min(LONGEST, max(INTERVAL, (now - started) / SHARE))

    def _rows(self) -> list[Row]:
        """The panel, never lower than before: what is below the text does not jump."""
        width, height = size(self._view.console)
        progress = Progress(
            self._run,
            self._totals,
            self._choice,
            self._cache,
            self._history,
            self._finish,
            self._step,
            self._block,
            self._flow,
        )
        panel = Panel(
            progress,
            self._view.panel,
            panel_height(width, height),
            self._view.color_by,
            self._colors,
            self._paused and self._choice is not None,
            self._highlighted if self._paused else None,
        )
        rows = panel.rows(width, glyphs_of(self._view.console.options))
        if self._finish is None:
            self._tallest = max(self._tallest, len(rows))
            rows += [[] for _ in range(self._tallest - len(rows))]
        return rows

    def _wait(self) -> None:
        """Until a key lets the run go on."""
        interrupt = self._view.interrupt
        self._highlighted = None
        while not (interrupt is not None and interrupt.is_set()):
            event = self.next_event(POLL)
            key = STEPPING.get(event.name, event.name) if isinstance(event, Key) else None
            if key == " ":
                break
            if key == "f":
                self._paused = False
                break
            if key == "q":
                if interrupt is None:
                    raise KeyboardInterrupt
                interrupt.set()
            elif key in ("j", "k") and self._choice is not None and self._choice.candidates:
                count = len(self._choice.candidates)
                start = -1 if key == "j" else count
                at = start if self._highlighted is None else self._highlighted
                self._highlighted = (at + (1 if key == "j" else -1)) % count
                self._draw()
        self._highlighted = None

"""The live view: text flows as on any terminal, and a panel below it shows the newest step."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from rich.console import Console
from rich.segment import Segment

from tokenglass.cli.terminal.keys import Keyboard
from tokenglass.cli.terminal.region import Region
from tokenglass.cli.terminal.signals import Action, Signals
from tokenglass.cli.terminal.terminal import size
from tokenglass.cli.widgets.panel import Panel, Progress, Size, panel_height
from tokenglass.cli.widgets.token_text import ColorBy, token_style
from tokenglass.cli.widgets.widget import DIM, Row, glyphs_of
from tokenglass.model.records.steps import CacheUsage, Choice, Finish, Record, Step, Totals
from tokenglass.model.runs.run import Run

INTERVAL = 0.05  # seconds between frames at least: 20 a second
SHARE = 0.04  # of the time that frames may take
LONGEST = 0.5  # seconds between frames on a terminal that is slow to write to
KEY_POLL = 0.1  # seconds between looks at a resize or an interrupt while waiting for a key


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
        signals = Signals()
        with Keyboard(reads=self.pause) as keyboard:
            session = Session(self, run, keyboard, signals)
            actions: dict[int, Action] = {
                signal.SIGTERM: session.on_terminate,
                signal.SIGTSTP: session.on_stop,
                signal.SIGWINCH: session.on_resize,
            }
            with signals.handled(actions):
                try:
                    return session.run(records)
                finally:
                    session.end()


class Session:
    """One run on one terminal: what has come, and what of it is shown."""

    def __init__(self, view: LiveView, run: Run, keyboard: Keyboard, signals: Signals):
        self._view = view
        self._run = run
        self._keyboard = keyboard
        self._signals = signals
        self._region = Region(view.console)
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
        with self._signals.held():
            if self._complete:
                self._region.finish(self._unshown, self._rows())
            else:
                self._region.leave(self._unshown)
        self._unshown = []

    def on_resize(self) -> None:
        self._tallest = 0
        self._draw(explain=False)

    def on_stop(self) -> None:
        """Ctrl-Z: give the terminal back, stop, and go on below what the shell wrote meanwhile."""
        self._region.leave(self._unshown)
        self._unshown = []
        self._keyboard.restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._keyboard.quiet()
        self._draw(explain=False)

    def on_terminate(self) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

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
        with self._signals.held():
            text, self._unshown = self._unshown, []
            self._region.draw(text, self._rows())
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
            key = self._keyboard.read(KEY_POLL)
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

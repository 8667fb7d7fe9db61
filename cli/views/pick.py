"""Choosing by hand on a terminal: keys in, a screen out, and the text in the scrollback at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rich.console import Console
from rich.segment import Segment

from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.screen import Screen
from tokenglass.cli.terminal.session import POLL, Key, Resize, Session
from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.views.picking import Picking
from tokenglass.cli.widgets.widget import DIM, glyphs_of

INTERVAL = 0.05  # seconds between frames at least, where no key is waited for


@dataclass(frozen=True, slots=True)
class PickView:
    """Lets a user choose on a terminal; `interrupt` ends a run of the sampler, and otherwise leaves."""

    console: Console
    picking: Picking
    interrupt: threading.Event

    def show(self) -> None:
        """Until the user quits; the text then stands in the scrollback, once."""
        with PickSession(self) as session:
            session.run()


class PickSession(Session):
    """One terminal for as long as the choosing takes."""

    def __init__(self, view: PickView):
        self._screen = Screen(view.console)
        super().__init__(self._screen, reads=True)
        self._view = view
        self._picking = view.picking
        self._due = 0.0

    def run(self) -> None:
        """Until the user quits or interrupts."""
        picking, interrupt = self._picking, self._view.interrupt
        self._draw(0)
        self._compute(picking.begin())
        while not picking.done:
            if not picking.page.runs:
                self._draw()
                key = self._next_key()
                if key is None:
                    return
                self._compute(picking.obey(key))
            elif interrupt.is_set() or isinstance(self.next_event(0), Key):
                interrupt.clear()
                picking.stop()
            else:
                self._draw_if_due()
                self._compute(picking.run_on())

    def end(self) -> None:
        """The screen as it was, and the text below it, prompt and all."""
        ascii_only = self._view.console.options.ascii_only
        prompt, text = (visible(part, ascii_only=ascii_only) for part in self._picking.text())
        with self.frame():
            self._screen.leave([Segment(prompt, DIM), Segment(text if text.endswith("\n") else f"{text}\n")])

    def _next_key(self) -> str | None:
        """The next key; None when the user interrupts."""
        while not self._view.interrupt.is_set():
            event = self.next_event(POLL)
            if isinstance(event, Key):
                return event.name
            if isinstance(event, Resize):
                self._draw()
        return None

    def _compute(self, passes: Iterable[int]) -> None:
        """Work that may take several passes: the screen shows how far it is, and an interrupt ends it between two."""
        for length in passes:
            if self._view.interrupt.is_set():
                return
            if not self._picking.page.runs:
                self._draw_if_due(length)

    def _draw_if_due(self, length: int | None = None) -> None:
        if time.perf_counter() >= self._due:
            self._draw(length)

    def _draw(self, length: int | None = None) -> None:
        console = self._view.console
        with self.frame():
            width, height = size(console)
            page = replace(self._picking.page, length=length)
            self._screen.draw(*page.rows(width, height, glyphs_of(console.options), console))
        self._due = time.perf_counter() + INTERVAL

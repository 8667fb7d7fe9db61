"""The smallest view that redraws: it lists its events. Run as a program in tests of the session on real terminals."""

from __future__ import annotations

import sys

from rich.segment import Segment

from tokenglass.cli.terminal.console import make_console, size
from tokenglass.cli.terminal.screen import Screen
from tokenglass.cli.terminal.session import POLL, Key, Resize, Session


class Listing(Session):
    def __init__(self) -> None:
        self._console = make_console(sys.stdout, color="never")
        self._screen = Screen(self._console)
        super().__init__(self._screen, reads=True)
        self._seen = ["ready"]

    def run(self) -> None:
        while True:
            with self.frame():
                self._screen.draw([[Segment(line)] for line in self._seen], None)
            match self.next_event(POLL):
                case Key("q"):
                    return
                case Key("e"):
                    raise SystemExit(3)
                case Key(name):
                    self._seen.append(f"key {name}")
                case Resize():
                    self._seen.append(f"size {size(self._console)}")
                case None if "a tick" not in self._seen:
                    self._seen.append("a tick")

    def end(self) -> None:
        with self.frame():
            self._screen.leave([Segment("left behind\n")])


if __name__ == "__main__":
    with Listing() as listing:
        listing.run()

"""What a terminal shows until a view begins: the prompt in grey, and what is being done; one that cannot move its
cursor only that. A pipe does without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tokenglass.cli.say import say
from tokenglass.cli.terminal.terminal import is_terminal, supports_live


class Opening:
    """Shows nothing: there are no two terminals."""

    is_shown = False

    def show(self, doing: str) -> None:
        """Say in a line what is being done."""

    def hand_over(self) -> None:
        """Leave what is shown where it is: the next frame begins with erasing what is below the cursor."""


NO_OPENING = Opening()


class PlainOpening(Opening):
    """A line on stderr for each thing that is done, on a terminal that cannot take it back."""

    def __init__(self) -> None:
        self._doing = ""

    def show(self, doing: str) -> None:
        if doing != self._doing:
            self._doing = doing
            say(doing)


@contextmanager
def opening(prompt: str = "", *, quiet: bool = False) -> Iterator[Opening]:
    """A few rows that are gone afterwards, whatever ends the block; what stderr gets meanwhile stands above them.

    A terminal that cannot move its cursor gets lines on stderr, unless the run is to be `quiet`.
    """
    if not supports_live(sys.stdout, sys.stderr):
        is_seen = is_terminal(sys.stdout) and is_terminal(sys.stderr) and not quiet
        first = PlainOpening() if is_seen else NO_OPENING
        first.show("starting")
        yield first
        return
    from tokenglass.cli.terminal.first_screen import FirstScreen  # a pipe needs no console

    with FirstScreen(prompt) as screen, screen.messages_above():
        screen.show("starting")
        yield screen

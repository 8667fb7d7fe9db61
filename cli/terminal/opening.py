"""What a terminal shows until a view begins: the prompt in grey, and what is being done. A pipe does without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tokenglass.cli.terminal.terminal import supports_live


class Opening:
    """Shows nothing: there are no two terminals."""

    is_shown = False

    def show(self, doing: str) -> None:
        """Say in a line what is being done."""

    def hand_over(self) -> None:
        """Leave what is shown where it is: the next frame begins with erasing what is below the cursor."""


NO_OPENING = Opening()


@contextmanager
def opening(prompt: str = "") -> Iterator[Opening]:
    """A few rows that are gone afterwards, whatever ends the block; what stderr gets meanwhile stands above them."""
    if not supports_live(sys.stdout, sys.stderr):
        yield Opening()
        return
    from tokenglass.cli.terminal.first_screen import FirstScreen  # a pipe needs no console

    with FirstScreen(prompt) as screen, screen.messages_above():
        screen.show("starting")
        yield screen

"""The rows that stand on a terminal while a model is being loaded."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.cells import set_cell_size
from rich.segment import Segment

from tokenglass.cli.terminal.opening import Opening
from tokenglass.cli.terminal.region import BEGIN, END, ERASE_ALL, HIDE, NEW_LINE, SHOW, WRAP_OFF, WRAP_ON
from tokenglass.cli.terminal.session import Session
from tokenglass.cli.terminal.terminal import is_ascii, visible
from tokenglass.cli.terminal.wrapping import Paragraph, width_to_read

GREY, PLAIN = "\x1b[2m", "\x1b[0m"


class Rows:
    """Rows from the cursor's line on, which go without a trace; between two frames the cursor waits at their start."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def draw(self, rows: Sequence[str]) -> None:
        """Show these rows, none wider than the terminal, in place of the last ones."""
        up = f"\x1b[{len(rows) - 1}A" if len(rows) > 1 else ""
        self._write(BEGIN, HIDE, ERASE_ALL, WRAP_OFF, NEW_LINE.join(rows), WRAP_ON, f"\r{up}", END)

    def leave(self, text: Sequence[Segment] = ()) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._write(ERASE_ALL, *(segment.text for segment in text), SHOW)

    def _write(self, *parts: str) -> None:
        self._stream.write("".join(parts))
        self._stream.flush()


class FirstScreen(Session, Opening):
    """The beginning of the prompt, as a view will show it, and what is being done. Keys leave no mark and wait."""

    is_shown = True

    def __init__(self, prompt: str):
        self._rows = Rows(sys.stdout)
        super().__init__(self._rows, reads=False)
        self._prompt = visible(prompt, ascii_only=is_ascii(sys.stdout, os.environ))
        self._doing = ""
        self._stays = False
        self._line_is_open = False  # of a message above

    def show(self, doing: str) -> None:
        if doing != self._doing:
            self._doing = doing
            self.redraw()

    def hand_over(self) -> None:
        self._stays = True

    def redraw(self) -> None:
        if self._line_is_open:
            return
        with self.frame():
            self._rows.draw(self.rows(*os.get_terminal_size(sys.stdout.fileno())))

    def end(self) -> None:
        if not (self._stays or self._line_is_open):
            super().end()

    def rows(self, width: int, height: int) -> list[str]:
        """At most all lines of the terminal but one."""
        shown: list[str] = []
        for line in self._prompt.split("\n") if self._prompt else []:
            paragraph = Paragraph()
            paragraph.add(line, None)
            shown += ["".join(part.text for part in row) for row in paragraph.rows(width_to_read(width))]
        status = set_cell_size(f" {self._doing}", min(len(self._doing) + 1, width))
        return [f"{GREY}{row}{PLAIN}" for row in [*shown[: max(0, height - 2)], status]]

    @contextmanager
    def messages_above(self) -> Iterator[None]:
        """What stderr gets stands above the rows, and what the model's parts log is what is being done."""
        former, log, handler = sys.stderr, logging.getLogger("tokenglass"), ShowHandler(self)
        sys.stderr = cast(TextIO, Above(former, self))
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            sys.stderr = former

    def write_above(self, stream: TextIO, text: str) -> None:
        """Write to a stream that shows on this terminal; the rows come back below the next whole line."""
        with self.frame():
            if not self._line_is_open:
                self._rows.leave()
            stream.write(text)
            stream.flush()
        self._line_is_open = not text.endswith("\n")
        self.redraw()


class Above:
    """A stream of which every write stands above the screen."""

    def __init__(self, stream: TextIO, screen: FirstScreen):
        self._stream = stream
        self._screen = screen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if text:
            self._screen.write_above(self._stream, text)
        return len(text)


class ShowHandler(logging.Handler):
    """Shows each record as what is being done."""

    def __init__(self, screen: FirstScreen):
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.show(record.getMessage())

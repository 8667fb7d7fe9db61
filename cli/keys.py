"""Keys from the controlling terminal, whatever stdin is."""

from __future__ import annotations

import contextlib
import os
import select
from types import TracebackType
from typing import Any, Self

from model.errors import ParameterError

ARROWS = {
    "\x1b[A": "k",
    "\x1b[B": "j",
    "\x1b[C": " ",
    "\x1bOA": "k",
    "\x1bOB": "j",
    "\x1bOC": " ",
    "\r": " ",
    "\n": " ",
}


class Keyboard:
    """The terminal with its echo off, so that keys (^C, too) leave no mark in the text; restored at the end.

    With `reads`, keys come one by one; otherwise they wait for the shell as usual.
    """

    def __init__(self, *, reads: bool):
        self._reads = reads
        self._fd: int | None = None
        self._saved: list[Any] | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        if self._reads and self._fd is None:
            raise ParameterError("--pause reads keys from a terminal, and there is none; leave it out")
        self.quiet()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.restore()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def quiet(self) -> None:
        """Echo off. In the background the terminal belongs to another program, and is left alone."""
        if self._fd is None:
            return
        import termios  # not on every system

        with contextlib.suppress(OSError, termios.error):
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                return
            now = termios.tcgetattr(self._fd)
            self._saved = self._saved or termios.tcgetattr(self._fd)
            now[3] &= ~(termios.ECHO | (termios.ICANON if self._reads else 0))
            termios.tcsetattr(self._fd, termios.TCSADRAIN, now)

    def restore(self) -> None:
        """The terminal as it was."""
        if self._fd is None or self._saved is None:
            return
        import termios  # not on every system

        with contextlib.suppress(OSError, termios.error):
            if os.tcgetpgrp(self._fd) == os.getpgrp():
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        self._saved = None

    def read(self, seconds: float) -> str | None:
        """The next key within that time: a character, arrows as k, j and space; None if none came."""
        if self._fd is None or not select.select([self._fd], [], [], seconds)[0]:
            return None
        typed = os.read(self._fd, 16).decode("utf-8", "replace")
        if not typed:
            raise ParameterError("--pause: the terminal was closed")
        return ARROWS.get(typed, typed[0])

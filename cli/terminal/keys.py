"""Keys from the controlling terminal, whatever stdin is."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import time
from types import TracebackType
from typing import Any, Self

from tokenglass.model.errors import ParameterError

LETTERS = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "M": "enter"}
NAMED = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x1b": "escape",
    "\x1b[3~": "delete",
    **{f"\x1b[{number}~": name for name, numbers in (("home", "17"), ("end", "48")) for number in numbers},
    **{f"\x1b{kind}{letter}": name for kind in "[O" for letter, name in LETTERS.items()},
}
SEQUENCE = re.compile(r"\x1b(O.|\[[0-?]*[ -/]*[@-~])", re.DOTALL)  # ECMA-48's control sequences, and SS3
BEGUN = re.compile(r"\x1b(O|\[[0-?]*[ -/]*)?")
REST_OF_SEQUENCE = 0.05  # seconds that the rest of a sequence may take on a slow line; then it was the Escape key


class Keyboard:
    """The terminal with its echo off, so that keys (^C, too) leave no mark in the text; restored at the end.

    With `reads`, keys come one by one, and where they are `needed` there has to be a terminal; otherwise they wait for
    the shell as usual.
    """

    def __init__(self, *, reads: bool, needed: bool = True):
        self._reads = reads
        self._needed = needed
        self._fd: int | None = None
        self._saved: list[Any] | None = None
        self._typed = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        if self._reads and self._needed and self._fd is None:
            raise ParameterError("there is no terminal to read keys from, and --pause and pick need one")
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
            if not self._is_in_front:
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
            if self._is_in_front:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        self._saved = None

    def key(self, seconds: float) -> str | None:
        """The next key within that time: one character, or a key's name, always longer; None if none came.

        Keys that have no name here are passed over. Raises ParameterError for a terminal that is gone.
        """
        if not self._typed:
            self._more(seconds)
        if BEGUN.fullmatch(self._typed):
            self._more(REST_OF_SEQUENCE)
        key, self._typed = split(self._typed)
        return key

    @property
    def _is_in_front(self) -> bool:
        """Whether what is typed is for this program. Raises OSError for a terminal that is gone."""
        return self._fd is not None and os.tcgetpgrp(self._fd) == os.getpgrp()

    def _more(self, seconds: float) -> None:
        try:
            if self._fd is None or not self._is_in_front:  # reading in the background would stop the program
                time.sleep(seconds)
                return
            if not select.select([self._fd], [], [], seconds)[0]:
                return
            typed = os.read(self._fd, 1024)
        except OSError:  # the terminal hung up
            typed = b""
        if not typed:
            raise ParameterError("the terminal was closed")
        self._typed += self._decoder.decode(typed)


def split(typed: str) -> tuple[str | None, str]:
    """The first key of what was typed, and the rest; None for one that has no name."""
    sequence = SEQUENCE.match(typed)
    if sequence is not None:
        return NAMED.get(sequence[0]), typed[sequence.end() :]
    key, rest = typed[:1], typed[1:]
    if key in NAMED:
        return NAMED[key], rest
    is_text = key == "\t" or " " <= key < "\x7f" or key >= "\xa0"
    return key if is_text else None, rest

"""All that is printed passes here, or a console of cli/terminal/console.py.

Nothing untrusted reaches a terminal as it is.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from tokenglass.cli.terminal.terminal import (
    NOT_ASCII,
    UNSAFE,
    is_ascii,
    is_terminal,
    plain_stream,
    visible,
)

LONGEST = 500  # characters of a line that may quote a file
SURROGATES = re.compile("[\ud800-\udfff]")


def say(message: str) -> None:
    """One line on stderr, if there is one; the middle of a long message is left out."""
    say_lines(one_line(message))


def say_lines(text: str) -> None:
    """Lines on stderr, all of them; below a text on stdout whose last line has not ended."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"{pending_newline()}{visible(text)}", file=sys.stderr, flush=True)


def say_dim(message: str) -> None:
    """A line that may be overlooked, on stderr."""
    if is_plain(sys.stderr):
        say(message)
        return
    print(f"{pending_newline()}\x1b[2m{one_line(message)}\x1b[0m", file=plain_stream(sys.stderr), flush=True)


def is_plain(stream: TextIO | None) -> bool:
    """Whether styles are better left out."""
    return bool(not is_terminal(stream) or os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "", "dumb"))


class TextOutput(io.BufferedWriter):
    """stdout of a run: it knows whether its last line has ended."""

    ends_open = False

    def write(self, data: Any) -> int:
        if data:
            self.ends_open = bytes(data[-1:]) != b"\n"
        return super().write(data)


def pending_newline() -> str:
    """What ends the line of a text on stdout, where both go to one place, or a pipe may lead to the same terminal.

    It is asked for once: what follows stands below it.
    """
    out = getattr(sys.stdout, "buffer", None)
    if not isinstance(out, TextOutput) or not out.ends_open:
        return ""
    here, there = os.fstat(sys.stderr.fileno()), os.fstat(out.fileno())
    same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
    out.ends_open = False
    return "\n" if same or (stat.S_ISFIFO(there.st_mode) and is_terminal(sys.stderr)) else ""


def one_line(message: str) -> str:
    """A message as one visible line of at most a few hundred characters."""
    return cut(visible(" ".join(cut(message).splitlines())))


def cut(text: str, most: int = LONGEST) -> str:
    """The beginning and the end of a text that is longer than `most`: advice comes last."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]} ... {text[5 - most // 3 :]}"


def write(text: str) -> None:
    """Text of our own on stdout, in UTF-8 where it is no terminal."""
    print(visible(text), flush=True)


def write_json(value: Any, *, indent: int | None = None) -> None:
    """A value as JSON on stdout, and a newline; what is not finite is null."""
    from tokenglass.model.records.encoder import to_text

    text = to_text(value)
    if indent is not None:
        text = json.dumps(json.loads(text), ensure_ascii=False, indent=indent)
    sys.stdout.buffer.write(json_bytes(text, terminal=is_terminal(sys.stdout)) + b"\n")
    sys.stdout.buffer.flush()


def json_bytes(text: str, *, terminal: bool) -> bytes:
    """JSON in UTF-8. What a terminal must not get, and half a surrogate pair anywhere, is an escape: it stays JSON."""
    pattern = SURROGATES
    if terminal:
        pattern = NOT_ASCII if is_ascii(sys.stdout, os.environ) else UNSAFE
    return pattern.sub(lambda match: _escape(match[0]), text).encode()


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0xA0 else json.dumps(char)[1:-1]


class VisibleText(io.TextIOWrapper):
    """A text stream on which control characters are visible, whoever writes: warnings, libraries, tracebacks."""

    def __init__(self, stream: io.TextIOWrapper):
        super().__init__(stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)
        self.plain_stream = stream

    def write(self, text: str) -> int:
        super().write(visible(text))
        return len(text)


def guard_streams() -> None:
    """Make stderr visible, and stdout UTF-8 where it is no terminal; no file that is opened later becomes either."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest number that is free
    if sys.stdout is None:  # an error for who writes to it
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  (stays open)
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = None if is_terminal(sys.stdout) else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
        if encoding is not None:
            out = TextOutput(io.FileIO(sys.stdout.fileno(), "w", closefd=False))
            sys.stdout = io.TextIOWrapper(out, encoding=encoding, errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = VisibleText(sys.stderr)


@contextlib.contextmanager
def unguarded_stderr() -> Iterator[None]:
    """For a library that moves the cursor on stderr, and writes nothing there that a stranger chose."""
    guarded = sys.stderr
    sys.stderr = plain_stream(guarded)
    try:
        yield
    finally:
        sys.stderr = guarded

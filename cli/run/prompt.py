"""Where the prompt comes from: arguments, stdin, a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tokenglass.model.errors import PromptError
from tokenglass.model.files import MIB, open_regular

STDIN = "-"
MOST = 64 * MIB  # bytes of a prompt: more than any context holds


def read_prompt(parts: Sequence[str], file: Path | None, *, keep_newline: bool) -> str:
    """The parts joined by newlines; stdin is read only for the part `-`, or when it is piped and nothing else is given.

    Raises PromptError, also for text that is not UTF-8.
    """
    if file is not None:
        if parts:
            raise PromptError("give the prompt as arguments or as --prompt-file, not both")
        return decode(read_file(file), str(file), keep_newline=keep_newline)
    if not parts:
        if sys.stdin is None or sys.stdin.isatty():
            raise PromptError('no prompt; try: generate "Once upon a time", or pipe one in (--help shows more)')
        parts = [STDIN]
    if list(parts).count(STDIN) > 1:
        raise PromptError("the part - (stdin) can stand only once")
    return "\n".join(
        read_stdin(sys.stdin, keep_newline=keep_newline) if part == STDIN else utf8_argument(part) for part in parts
    )


def read_source(prompt: str | None, file: Path | None, *, keep_newline: bool) -> str:
    """The text of --prompt, of --prompt-file, or of stdin. Raises PromptError."""
    if prompt is not None:
        return read_prompt([prompt], file, keep_newline=keep_newline)
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise PromptError('no prompt; pipe one in, or give --prompt "TEXT" (--help shows more)')
    return read_prompt([] if file is not None else [STDIN], file, keep_newline=keep_newline)


def read_stdin(stdin: TextIO | None, *, keep_newline: bool) -> str:
    if stdin is None:
        raise PromptError("stdin is closed, but the prompt asks for it")
    return decode(check_size(stdin.buffer.read(MOST + 1), "stdin"), "stdin", keep_newline=keep_newline)


def read_file(path: Path, most: int = MOST) -> bytes:
    """A regular file: a FIFO or a device may never end. Raises PromptError."""
    try:
        with open_regular(path) as opened:
            return check_size(opened.read(most + 1), str(path), most)
    except OSError as error:
        raise PromptError(f"{path}: {error.strerror}; give a file that can be read, or - for stdin") from None


def check_size(content: bytes, source: str, most: int = MOST) -> bytes:
    """The same bytes. Raises PromptError for more than `most` of them."""
    if len(content) > most:
        raise PromptError(f"{source} is larger than {most // MIB} MiB, which no context holds; cut it first")
    return content


def decode(content: bytes, source: str, *, keep_newline: bool) -> str:
    """UTF-8 text without its last newline, and without a byte order mark."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"{source} is not valid UTF-8 at byte {error.start:,}; convert it first") from None
    return text if keep_newline else text.removesuffix("\n").removesuffix("\r")


def utf8_argument(part: str) -> str:
    """An argument as text: where the locale is not UTF-8, its bytes still are. Raises PromptError."""
    try:
        part.encode("utf-8")
    except UnicodeEncodeError:
        return decode(os.fsencode(part), "the prompt", keep_newline=True)
    return part

"""Lines of a file or a pipe with their numbers, however long it is."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.files import MIB, open_regular

LONGEST_LINE = 16 * MIB
MARK = b"\xef\xbb\xbf"  # a byte order mark, which is no text


def open_lines(file: Path | None) -> BinaryIO:
    """A regular file, or stdin. Raises PromptError."""
    if file is None:
        if sys.stdin is None:
            raise PromptError("stdin is closed, but the prompts are to come from it")
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return open_regular(file)
    except OSError as error:
        raise PromptError(f"{file}: {error.strerror}; give a file that can be read, or pipe it in") from None


def number_lines(opened: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines as they come, without the empty ones; of one that is too long, more than LONGEST_LINE bytes. The file
    is closed behind the last."""
    number = 0
    with opened:
        while line := opened.readline(LONGEST_LINE + 1):
            number += 1
            while len(line) > LONGEST_LINE and not line.endswith(b"\n") and (more := opened.readline(LONGEST_LINE)):
                line = line[:LONGEST_LINE] + more[-1:]  # too long in any case
            if line.strip():
                yield number, line


def check_line(line: bytes) -> bytes:
    """The same line without a byte order mark. Raises ParameterError where it is too long."""
    if len(line) > LONGEST_LINE:
        raise ParameterError(f"longer than {LONGEST_LINE // MIB} MiB")
    return line.removeprefix(MARK)


def count_lines(opened: BinaryIO) -> int | None:
    """How many lines are still to be read of a regular file; None of a pipe. Nothing is read on."""
    try:
        number, where = opened.fileno(), opened.tell()
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return None
        lines, last = 0, b"\n"
        while block := os.pread(number, MIB, where):
            lines, last, where = lines + block.count(b"\n"), block[-1:], where + len(block)
    except (OSError, ValueError):
        return None
    return lines + (last != b"\n")

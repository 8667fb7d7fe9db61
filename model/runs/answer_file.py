"""A file of answers that a killed run leaves, and the next one goes on with."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import BinaryIO

from tokenglass.model.checkpoint.partial import lock
from tokenglass.model.errors import ParameterError
from tokenglass.model.runs.answers import Origin, fingerprint

BEGINNING = b'{"id":'  # of an answer
FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
LONGEST = 2**28  # bytes of a line; a text of any context, with its candidates, is shorter


class AnswerFile:
    """One line a prompt, each written whole at once; readable by its owner alone.

    `done` are the fingerprints of the ids that are answered. A last line without its end was cut off by a kill, and is
    taken out: its prompt is answered again. Raises ParameterError where the file cannot be used, or another process
    writes it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.done: set[int] = set()
        self.origin: Origin | None = None  # that of the lines which are there
        try:
            self._file = os.open(path, FLAGS, 0o600)
        except (OSError, ValueError) as error:
            raise ParameterError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
        try:
            self._take_in()
        except BaseException:
            self.close()
            raise

    def write(self, line: bytes) -> None:
        """One more answer. Raises OSError where the disk is full, and then the line is not there."""
        end = os.fstat(self._file).st_size
        rest = line
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            os.ftruncate(self._file, end)
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def close(self) -> None:
        os.close(self._file)

    def check(self, origin: Origin) -> None:
        """Raises ParameterError where the lines are of a run with other settings."""
        there = self.origin
        if there is None or there == origin:
            return
        if there.model != origin.model:
            what = f"the model {there.model!a} and not {origin.model!a}"
        elif there.run_seed != origin.run_seed:
            what = f"seed {there.run_seed} and not {origin.run_seed}"
        else:
            what = f"other settings ({there.settings} and not {origin.settings})"
        raise self._refusal(f"was begun with {what}; give the options that it was begun with, or another file")

    def _take_in(self) -> None:
        """Lock the file and read what is there. Raises ParameterError."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise self._refusal("is no regular file, so that no run could go on with it; pipe stdout there instead")
        if not lock(self._file, wait=False):
            raise self._refusal("another process writes it now; let it end, or name another file")
        try:
            with open(self._file, "rb", closefd=False) as opened:
                os.ftruncate(self._file, self._read(opened))
            if self._ends_open():
                self.write(b"\n")
        except OSError as error:
            raise self._refusal(f"answers cannot be kept there ({error.strerror})") from None

    def _read(self, opened: BinaryIO) -> int:
        """Take in the answers that are there; how many bytes of them are whole."""
        number = end = 0
        while line := opened.readline(LONGEST):
            number += 1
            if not line.endswith(b"\n") and len(line) < LONGEST and is_torn(line):
                break
            origin, done = self._parse(number, line)
            if self.origin not in (None, origin):
                raise self._refusal(f"line {number:,} is of another run than those before it; name another file")
            self.origin = origin
            self.done.add(done)
            end += len(line)
        return end

    def _parse(self, number: int, line: bytes) -> tuple[Origin, int]:
        try:
            content = json.loads(line)
            model, seed, settings = content["model"], content["run_seed"], content["settings"]
            if not (isinstance(model, str) and isinstance(seed, int) and isinstance(settings, str)):
                raise ValueError
            return Origin(model, seed, settings), fingerprint(content["id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._refusal(f"line {number:,} is no answer of this program; name another file") from None

    def _ends_open(self) -> bool:
        """Whether the last line is whole but for its end."""
        size = os.fstat(self._file).st_size
        return size > 0 and os.pread(self._file, 1, size - 1) != b"\n"

    def _refusal(self, reason: str) -> ParameterError:
        return ParameterError(f"{self.path}: {reason}")


def is_torn(line: bytes) -> bool:
    """Whether a line without its end is the beginning of an answer, and nothing that somebody else wrote."""
    if line[: len(BEGINNING)] != BEGINNING[: len(line)]:
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False

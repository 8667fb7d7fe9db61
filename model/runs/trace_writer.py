"""A run kept in a file while it goes on: an iterator over its records that adds each one before it passes it on."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Choice, Finish, Record, Step
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace import to_line
from tokenglass.model.sampling.sampler import likeliest

GZIP = 31  # zlib's name for gzip's format
LEVEL = 1  # lines are much alike: higher levels take longer, and save little
WAIT_SECONDS, WAIT_STEPS = 0.02, 16  # what a killed process may lose of a fast run: several steps are written at once,
# which takes a third of the time that they take one by one, each with a processor's caches full of weights
FLUSH_SECONDS, FLUSH_LINES = 0.5, 32  # what it may lose of a compressed trace


class TraceWriter:
    """A new file, readable by its owner alone; compressed where its name ends in .gz. It is made at the first record.

    What is there already is never overwritten or followed: a kept run is not lost by a second one. Where the disk
    fills up the trace ends, `failure` says why, and the run goes on.
    """

    def __init__(self, path: Path):
        """Raises ParameterError where the file cannot be made."""
        require_new(path, "trace")
        self.failure: OSError | None = None
        self._path = path
        self._file: int | None = None
        self._waiting: list[Run | Step | Finish] = []
        self._written = 0.0  # when something was last
        self._compressor = zlib.compressobj(LEVEL, wbits=GZIP) if path.suffix == ".gz" else None
        self._flushed, self._unflushed = time.monotonic(), 0  # lines since then

    def add(self, record: Run | Step | Finish) -> None:
        """One more line. A step that comes fast upon another may wait for those behind it. Raises ParameterError where
        the file cannot be made."""
        if self.failure is not None:
            return
        if self._file is None:
            self._file = create(self._path, "trace")
        self._waiting.append(record)
        is_full = len(self._waiting) >= WAIT_STEPS or not isinstance(record, Step)
        if is_full or time.monotonic() - self._written >= WAIT_SECONDS:
            self._write()

    def close(self) -> None:
        """The file whole."""
        if self._file is None:
            return
        self._write()
        if self._compressor is not None and self.failure is None:
            self._append(self._compressor.flush())
        os.close(self._file)
        self._file = None

    def _write(self) -> None:
        """The lines that wait."""
        records, self._waiting = self._waiting, []
        self._written = time.monotonic()
        lines = "".join([to_line(record) + "\n" for record in records]).encode("utf-8", "backslashreplace")
        if self._compressor is not None:
            lines = self._compressor.compress(lines)
            self._unflushed += len(records)
            if self._unflushed >= FLUSH_LINES or self._written - self._flushed >= FLUSH_SECONDS:
                lines += self._compressor.flush(zlib.Z_SYNC_FLUSH)
                self._flushed, self._unflushed = self._written, 0
        self._append(lines)

    def _append(self, content: bytes) -> None:
        assert self._file is not None
        try:
            while content:
                content = content[os.write(self._file, content) :]
        except OSError as error:
            self.failure = error


def watch(run: Run, records: Iterable[Record], add: Callable[[Run | Record], None]) -> Iterator[Record]:
    """The same records, each added first with as many candidates as the run tells of.

    A run that is refused before its first record is not added.
    """
    begun = False
    for record in records:
        if not begun:
            add(run)
            begun = True
        add(shorten(record, run.request.top))
        yield record


def require_new(path: Path, what: str) -> None:
    """Raises ParameterError where something is there already, or no folder to make it in."""
    if os.path.lexists(path):
        raise ParameterError(f"{path}: already exists, and a {what} is never overwritten; give another name")
    if not path.parent.is_dir():
        raise ParameterError(f"{path}: there is no folder {path.parent} to write a {what} in")


def create(path: Path, what: str) -> int:
    """A new regular file, mode 0600. Raises ParameterError."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(f"{path}: no {what} can be written ({reason})") from None


def shorten(record: Record, top: int) -> Record:
    """The record as it would be with `top` candidates a choice: the most probable, and always the chosen one."""
    if isinstance(record, Finish) or all(len(choice.candidates) <= top for choice in record.choices):
        return record
    return replace(record, choices=tuple([fewer_candidates(choice, top) for choice in record.choices]))


def fewer_candidates(choice: Choice, top: int) -> Choice:
    token_ids = {choice.token_id}
    if choice.is_constrained:
        token_ids |= {candidate.token_id for candidate in likeliest(choice.candidates)[:top]}
    rest = [candidate for candidate in choice.candidates[top:] if candidate.token_id in token_ids]
    return replace(choice, candidates=(*choice.candidates[:top], *rest))

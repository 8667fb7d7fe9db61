"""A trace read line by line, forwards and back: a file, a gzip file or a pipe, of any length, from anybody."""

from __future__ import annotations

import tempfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tokenglass.model.errors import TraceError
from tokenglass.model.files import open_regular
from tokenglass.model.records.steps import Finish, Step
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace import from_line

MAX_LINE = 2**24  # bytes
CHUNK = 2**20  # bytes
GZIP, MAGIC = 31, b"\x1f\x8b"
CUT = "the trace ends in the midst of a line, which is left out"


class TraceReader:
    """The records of a trace by their number. What was read once can be read again: only its place is kept in memory.

    `note` says, once the end was reached, what is missing there: a run that was killed leaves a cut line.
    """

    def __init__(self, stream: BinaryIO, *, is_file: bool, name: str = "stdin"):
        """A stream that is no plain file is copied to a temporary one as far as it is read; errors name it."""
        self.name = name
        self.note = ""
        self._starts = array("Q", [0])  # of every line that was read, and of the next
        self._run = 0  # the line of the newest one
        self._source: Iterator[bytes] | None = None
        self._file = stream
        first = stream.read(len(MAGIC)) if is_file else b""
        if is_file:
            stream.seek(0)
        if not is_file or first == MAGIC:
            self._source = self._plain(stream)
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._stream.close()

    def __iter__(self) -> Iterator[Run | Step | Finish]:
        """All records from the first. Raises TraceError with the line's number."""
        if self.line(0) is None:
            raise TraceError(f"{self.name}: trace: it is empty")
        number = 0
        while (record := self.record(number)) is not None:
            if isinstance(record, Run):
                self._run = number
            yield record
            number += 1

    def following(self, count: int) -> Step | None:
        """The step that stands behind the newest run and `count` other records; None where there is none."""
        record = self.record(self._run + 1 + count)
        return record if isinstance(record, Step) else None

    def record(self, number: int) -> Run | Step | Finish | None:
        """The record of a line, counted from 0; None behind the last. Raises TraceError with the line's number."""
        line = self.line(number)
        if line is None:
            return None
        try:
            record = from_line(line.decode())
            if number == 0 and not isinstance(record, Run):
                raise TraceError("trace: it does not begin with a run; is this a trace?")
        except UnicodeDecodeError as error:
            raise TraceError(f"{self.name}: line {number + 1:,}: trace: not UTF-8 (byte {error.start:,})") from None
        except TraceError as error:
            if number > 0 and not line.endswith(b"\n"):
                self.note = self.note or CUT
                return None
            raise TraceError(f"{self.name}: line {number + 1:,}: {error}") from None
        return record

    def line(self, number: int) -> bytes | None:
        """The bytes of a line; None behind the last."""
        while number >= len(self._starts):
            if self._next() is None:
                return None
        self._file.seek(self._starts[number])
        return self._next() if number + 1 == len(self._starts) else self._file.readline(MAX_LINE) or None

    def _next(self) -> bytes | None:
        """The first line that was not read yet."""
        start = self._starts[-1]
        self._file.seek(start)
        line = self._file.readline(MAX_LINE + 1)
        while not line.endswith(b"\n") and len(line) <= MAX_LINE and self._grow():
            self._file.seek(start)
            line = self._file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise TraceError(f"{self.name}: line {len(self._starts):,}: trace: longer than {MAX_LINE:,} bytes, refused")
        if line:
            self._starts.append(start + len(line))
        return line or None

    def _grow(self) -> bool:
        """Copy more of the stream, if there is more."""
        chunk = next(self._source, b"") if self._source is not None else b""
        self._file.seek(0, 2)
        if chunk:
            self._file.write(chunk)
        return bool(chunk)

    def _plain(self, stream: BinaryIO) -> Iterator[bytes]:
        """The bytes of a stream, decompressed where they are gzip's. Raises TraceError for damaged ones."""
        chunk = some(stream)
        if not chunk.startswith(MAGIC):
            while chunk:
                yield chunk
                chunk = some(stream)
            return
        decompressor = zlib.decompressobj(GZIP)
        try:
            while chunk:
                if plain := decompressor.decompress(chunk, CHUNK):
                    yield plain
                chunk = decompressor.unconsumed_tail or decompressor.unused_data or some(stream)
                if decompressor.eof and chunk:  # files that were put one behind the other
                    decompressor = zlib.decompressobj(GZIP)
            if rest := decompressor.flush():
                yield rest
        except zlib.error as error:
            raise TraceError(f"{self.name}: trace: damaged gzip data ({error})") from None
        if not decompressor.eof:
            self.note = "the compressed trace is cut; what came before is shown"


def some(stream: BinaryIO) -> bytes:
    """What a stream has now, up to a limit; empty at its end."""
    read1 = getattr(stream, "read1", stream.read)
    content: bytes = read1(CHUNK)
    return content


def open_trace(path: Path) -> TraceReader:
    """A trace in a file. Raises TraceError."""
    try:
        return TraceReader(open_regular(path), is_file=True, name=str(path))
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror})") from None

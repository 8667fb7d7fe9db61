"""JSON lines on stdout: the trace of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from model.steps import Finish, Record
from model.trace import Run, to_line


@dataclass(frozen=True, slots=True)
class JsonlView:
    out: BinaryIO

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        self._write(run)
        for record in records:
            self._write(record)
            finish = record
        assert isinstance(finish, Finish)
        return finish

    def _write(self, record: Run | Record) -> None:
        self.out.write(to_line(record).encode() + b"\n")
        self.out.flush()

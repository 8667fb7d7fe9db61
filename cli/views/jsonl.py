"""JSON lines on stdout: the trace of the run."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from tokenglass.cli.say import json_bytes
from tokenglass.cli.views.view import Setting
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace import to_line


def make(_: Setting) -> JsonlView:
    return JsonlView(sys.stdout.buffer)


@dataclass(frozen=True, slots=True)
class JsonlView:
    out: BinaryIO

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        begun = False
        for record in records:
            if not begun:  # a run that is refused before its first record has no line either
                self._write(run)
                begun = True
            self._write(record)
            finish = record
        assert isinstance(finish, Finish)
        return finish

    def _write(self, record: Run | Record) -> None:
        self.out.write(json_bytes(to_line(record), terminal=self.out.isatty()) + b"\n")
        self.out.flush()

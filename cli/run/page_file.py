"""Runs kept as a page, which is written when they have ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tokenglass.model.records.steps import Finish, Step
from tokenglass.model.runs.trace_writer import create, require_new

if TYPE_CHECKING:
    from tokenglass.model.records.steps import Record
    from tokenglass.model.runs.run import Run


class PageFile:
    """A new file, readable by its owner alone; a run that is refused before its first record leaves none."""

    def __init__(self, path: Path):
        """Raises ParameterError where the file cannot be made."""
        require_new(path, "page")
        self._path = path
        self._runs: list[tuple[Run, list[Record]]] = []

    def add(self, record: Run | Record) -> None:
        """One more record of the run that was added last, or the next run."""
        if isinstance(record, Step | Finish):
            self._runs[-1][1].append(record)
        else:
            self._runs.append((record, []))

    def write(self) -> None:
        """The page of what was watched. Raises ParameterError where the file cannot be made, OSError."""
        if not self._runs:
            return
        from tokenglass.cli.export.page import page

        with os.fdopen(create(self._path, "page"), "wb") as file:
            file.write(page(self._runs).encode("utf-8", "replace"))

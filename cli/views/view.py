"""What every view is: something that consumes the records of a run as they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.run import Run


class View(Protocol):
    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        """Show the records as they come and return the last Finish. Errors of the iterator pass through."""

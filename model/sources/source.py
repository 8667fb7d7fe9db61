"""Where the records of a run come from: a model that is here, or a server. Views and traces ask no further."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.records.steps import Record


class Source(Protocol):
    def records(self, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        """The steps of each text as they come, and a Finish when it ends; the interrupt ends all texts.

        An error comes behind a Finish with reason "error" for each text that is open. Raises TokenglassError.
        """

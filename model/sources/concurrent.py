"""Many texts at once, each from a source of its own that a thread reads, as of a server that batches them itself."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from tokenglass.model.decoding.prompts import Prompts
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import TokenglassError, UnreachableError
from tokenglass.model.records.steps import Finish, Record, Totals
from tokenglass.model.sources.source import Source

POLL = 0.05  # seconds between two looks for new prompts, and at what closes the texts
MOST_WAITING = 1024  # records that have come and were not taken yet


@dataclass(slots=True)
class SourceText:
    """A text that is still to be asked for."""

    source: Source
    request: Request
    number: int = 0


class ConcurrentTexts:
    """The texts that `prompts` gives, at most `most` at once.

    A text that ends with an error while the others go on has it in `failures`, before its Finish comes. An error that
    the next text would meet, too, is raised once those that have begun have ended.
    """

    def __init__(
        self,
        prompts: Prompts[SourceText],
        most: int,
        interrupt: Interrupt,
        failures: dict[int, TokenglassError],
    ):
        self._prompts = prompts
        self._most = most
        self._interrupt = interrupt
        self._failures = failures
        self._num_open = 0
        self._queue: queue.Queue[tuple[Record, BaseException | None]] = queue.Queue(MOST_WAITING)
        self._closing = threading.Event()  # nobody wants the rest
        self._error: BaseException | None = None  # that ends the run

    def records(self) -> Iterator[Record]:
        """The steps of all texts as they come, and a Finish for each when it ends; an interrupt lets those that have
        begun end. Raises UnreachableError."""
        try:
            while self._may_begin or self._num_open:
                self._begin_more()
                with suppress(queue.Empty):
                    yield self._take()
        finally:
            self._closing.set()
        if self._error is not None:
            raise self._error

    @property
    def _may_begin(self) -> bool:
        return self._error is None and not self._interrupt.is_set() and self._prompts.are_left

    def _begin_more(self) -> None:
        """A thread for each text that has a place."""
        while self._num_open < self._most and self._may_begin:
            text = self._prompts.take(wait=not self._num_open)
            if text is None:
                return
            self._num_open += 1
            threading.Thread(target=self._read, args=(text,), name=f"text {text.number}", daemon=True).start()

    def _take(self) -> Record:
        """The next record of any text. Raises queue.Empty where there is none yet."""
        record, error = self._queue.get(timeout=POLL if self._num_open else 0)
        if isinstance(record, Finish):
            self._num_open -= 1
            if isinstance(error, TokenglassError) and not isinstance(error, UnreachableError):
                self._failures[record.sequence] = error
            else:
                self._error = self._error or error
        return record

    def _read(self, text: SourceText) -> None:
        """What a thread does: the records of one text, the last of them with the error that ended it."""
        end, error = Finish(text.number, "error", "", Totals(), whole_text=""), None
        try:
            for record in text.source.records(text.request, self._closing):
                if isinstance(record, Finish):
                    end = replace(record, sequence=text.number)
                else:
                    self._put(replace(record, sequence=text.number))
        except BaseException as raised:  # whoever takes the records raises it
            error = raised
        self._put(end, error)

    def _put(self, record: Record, error: BaseException | None = None) -> None:
        while not self._closing.is_set():
            with suppress(queue.Full):
                self._queue.put((record, error), timeout=POLL)
                return

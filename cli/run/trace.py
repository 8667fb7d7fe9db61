"""A run that is kept while it is shown: more candidates in the file than on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tokenglass.cli.options.trace import TraceOptions
from tokenglass.cli.say import say
from tokenglass.model.files import expand_home

if TYPE_CHECKING:
    from tokenglass.cli.run.page_file import PageFile
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.records.steps import Finish, Record, Step
    from tokenglass.model.runs.run import Run
    from tokenglass.model.runs.trace_writer import TraceWriter


class Keeper:
    """Keeps runs in the files that were asked for until it is left; `top` candidates a step are shown."""

    def __init__(self, options: TraceOptions, top: int):
        """Raises ParameterError for a file that cannot be made."""
        self._options = options
        self._top = top
        self._writer: TraceWriter | None = None
        self._page: PageFile | None = None
        if options.trace is not None:
            from tokenglass.model.runs.trace_writer import TraceWriter

            self._writer = TraceWriter(expand_home(str(options.trace)))
        if options.html is not None:
            from tokenglass.cli.run.page_file import PageFile

            self._page = PageFile(expand_home(str(options.html)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
            if self._writer.failure is not None:
                say(f"note: {self._options.trace}: the trace ends early ({self._writer.failure.strerror})")
        if self._page is not None:
            self._page.write()

    @property
    def is_on(self) -> bool:
        return self._writer is not None or self._page is not None

    def widen(self, request: Request) -> Request:
        """The request with as many candidates as the trace and the screen need."""
        return replace(request, top=max(self._top, self._options.trace_top)) if self.is_on else request

    def add(self, record: Run | Step | Finish) -> None:
        """Keep one record; a description with as many candidates as it tells of."""
        from tokenglass.model.runs.run import Run
        from tokenglass.model.runs.trace_writer import shorten

        top = self._options.trace_top
        shorter = (
            replace(record, request=replace(record.request, top=top))
            if isinstance(record, Run)
            else shorten(record, top)
        )
        for file in (self._writer, self._page):
            if file is not None:
                file.add(shorter)

    def keep(self, run: Run, records: Iterator[Record]) -> tuple[Run, Iterator[Record]]:
        """The run and its records as they are shown; they are written as they come."""
        if not self.is_on:
            return run, records
        from tokenglass.model.runs.trace_writer import shorten, watch

        tops = (self._options.trace_top, self._top)
        in_file, on_screen = (replace(run, request=replace(run.request, top=top)) for top in tops)
        for file in (self._writer, self._page):
            records = records if file is None else watch(in_file, records, file.add)
        return on_screen, (shorten(record, self._top) for record in records)

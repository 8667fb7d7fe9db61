"""Several texts where nothing is redrawn: one after another, in a pipe or on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from rich.console import Console

from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.terminal.wrapping import width_to_read
from tokenglass.cli.views.view import View
from tokenglass.cli.widgets.lines import Rule
from tokenglass.cli.widgets.texts import heading
from tokenglass.cli.widgets.widget import glyphs_of
from tokenglass.model.decoding.run_totals import RunTotals
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.run import Run


@dataclass(frozen=True, slots=True)
class Counted:
    """Any view, whose Finish is then that of the whole run."""

    view: View

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        run_totals = RunTotals()
        self.view.show(run, run_totals.watch(records))
        return run_totals.finish


@dataclass(frozen=True, slots=True)
class SeveralPipe:
    """Exact bytes, with something between two texts; `shown` is how many beams are printed."""

    out: BinaryIO
    echo: bool = False
    shown: int = 1
    between: str = "\n"
    behind: str = ""

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        begun, done = False, 0
        for record in arrange(run, records, self.shown):
            if not begun:
                self._write((self.between if done else "") + (run.prompt if self.echo else ""))
                begun = True
            self._write(record.text)
            if isinstance(record, Finish):
                begun, done = False, done + 1
                finish = record
        self._write(self.behind)
        return finish

    def _write(self, text: str) -> None:
        if text:
            self.out.write(text.encode("utf-8", "replace"))
            self.out.flush()


@dataclass(frozen=True, slots=True)
class SeveralPlain:
    """The same on a terminal: the prompt dimmed, then each text below a rule that names it."""

    console: Console
    shown: int = 1

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        self._write(run.prompt, "dim")
        written, begun, done = run.prompt, False, 0
        try:
            for record in arrange(run, records, self.shown):
                if not begun:
                    self._end_line(written)
                    self._rule(run, done, record)
                    written, begun = "\n", True
                self._write(record.text)
                written = record.text or written
                if isinstance(record, Finish):
                    begun, done = False, done + 1
                    finish = record
        finally:
            self._end_line(written)
        return finish

    def _rule(self, run: Run, rank: int, record: Record) -> None:
        title, note = heading(run, rank, record if isinstance(record, Finish) else None)
        width, _ = size(self.console)
        (row,) = Rule(title, note).rows(width_to_read(width), glyphs_of(self.console.options))
        for segment in row:
            self.console.out(segment.text, style=segment.style, highlight=False, end="")
        self.console.line()

    def _end_line(self, written: str) -> None:
        if not written.endswith("\n"):
            self.console.line()

    def _write(self, text: str, style: str | None = None) -> None:
        if text:
            self.console.out(visible(text), style=style, highlight=False, end="")


def arrange(run: Run, records: Iterable[Record], shown: int) -> Iterator[Record]:
    """What a reader gets, text after text: every sample, or the `shown` best beams of a search."""
    return best(records, shown) if run.search.has_beams else in_turn(records)


def in_turn(records: Iterable[Record]) -> Iterator[Record]:
    """Sequence after sequence: the first as it comes, the others when it is their turn."""
    turn = 0
    waiting: dict[int, list[Record]] = {}
    for record in records:
        waiting.setdefault(record.sequence, []).append(record)
        while waiting.get(turn):
            first, *waiting[turn] = waiting[turn]
            yield first
            if isinstance(first, Finish):
                turn += 1
    for number in sorted(waiting):  # those whose turn never came: a trace may lack the others
        yield from waiting[number]


def best(records: Iterable[Record], count: int) -> Iterator[Finish]:
    """The first `count` ends alone: those of beams come ranked, and have the whole text."""
    for record in records:
        if isinstance(record, Finish):
            count -= 1
            if count >= 0:
                yield record

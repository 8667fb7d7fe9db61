"""The text and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from tokenglass.cli.options.view import ColorWhen
from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.views.view import Setting, View
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.run import Run

if TYPE_CHECKING:
    from rich.console import Console


def make(setting: Setting) -> View:
    """For a terminal or a pipe, one text or several. A pipe needs no console."""
    search, color = setting.search, setting.options.color
    is_terminal = sys.stdout.isatty() or color is ColorWhen.always
    if search.is_several:
        from tokenglass.cli.views.several import SeveralPipe, SeveralPlain

        if not is_terminal:
            return SeveralPipe(sys.stdout.buffer, setting.echo, search.num_samples, search.between, search.behind)
    elif not is_terminal:
        return PipeView(sys.stdout.buffer, setting.echo)
    from tokenglass.cli.terminal.console import make_console

    console = make_console(sys.stdout, color=color.value)
    return SeveralPlain(console, search.num_samples) if search.is_several else PlainView(console)


@dataclass(frozen=True, slots=True)
class PipeView:
    """Exact bytes, as they come."""

    out: BinaryIO
    echo: bool

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        if self.echo:
            self._write(run.prompt)
        for record in records:
            self._write(record.text)
        assert isinstance(record, Finish)
        return record

    def _write(self, text: str) -> None:
        if text:
            self.out.write(text.encode("utf-8", "replace"))
            self.out.flush()


@dataclass(frozen=True, slots=True)
class PlainView:
    """The same on a terminal: the prompt dimmed before it, control characters made visible, a newline at the end."""

    console: Console

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        self._write(run.prompt, "dim")
        written = run.prompt
        try:
            for record in records:
                for text, style in self.parts(record):
                    self._write(text, style)
                    written = text or written
        finally:
            if not written.endswith("\n"):
                self.console.line()
        assert isinstance(record, Finish)
        return record

    def parts(self, record: Record) -> Sequence[tuple[str, str | None]]:
        """The texts of a record, each with its style."""
        return ((record.text, None),)

    def _write(self, text: str, style: str | None = None) -> None:
        if text:
            self.console.out(visible(text), style=style, highlight=False, end="")

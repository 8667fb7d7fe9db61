"""A run that is ready to begin, whatever writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tokenglass.cli.run.text_options import TextOptions
from tokenglass.model.errors import ParameterError

if TYPE_CHECKING:
    from tokenglass.cli.options.cache import CacheOptions
    from tokenglass.cli.options.mode import ModeOptions
    from tokenglass.cli.options.model import ServedModelOptions
    from tokenglass.cli.options.prompt import PromptOptions
    from tokenglass.cli.options.search import SearchOptions
    from tokenglass.cli.options.view import ViewName
    from tokenglass.cli.run.trace import Keeper
    from tokenglass.cli.terminal.interrupts import Interrupt
    from tokenglass.cli.terminal.opening import Opening
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.inspection.explainer import Explainer
    from tokenglass.model.records.steps import Record
    from tokenglass.model.runs.run import Run
    from tokenglass.model.sampling.stages import ChoiceLog
    from tokenglass.model.sources.source import Source


@dataclass(frozen=True, slots=True)
class RunOptions(TextOptions):
    """All that `generate` is asked; `view_name` is what --view means here."""

    prompt: PromptOptions
    search: SearchOptions
    mode: ModeOptions
    view_name: ViewName
    cache: CacheOptions
    keeper: Keeper

    @property
    def is_kept(self) -> bool:
        """Whether the description of the run is written anywhere."""
        return self.keeper.is_on or self.view_name == "jsonl"


class Watcher(Protocol):
    def watch(self, records: Iterator[Record]) -> Iterator[Record]:
        """The same records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """What describes a run, who gives its records, and who sees them pass."""

    run: Run
    request: Request
    source: Source
    watchers: tuple[Watcher, ...] = ()
    explainer: Explainer | None = None  # explains the steps that a live view draws
    log: ChoiceLog | None = None  # what the choices of a live view are made of

    def records(self, interrupt: Interrupt) -> Iterator[Record]:
        """Raises TokenglassError."""
        records = self.source.records(self.request, interrupt)
        for watcher in self.watchers:
            records = watcher.watch(records)
        return records

    def end(self, *, is_interrupted: bool) -> None:
        """What is left to do once the records have been shown."""

    def check(self) -> None:
        """Raises Exit where a text is not what it had to be; that is said."""


def prepare(text: str, options: RunOptions, opening: Opening) -> PreparedRun:
    """A run of the model that is meant, here or behind a server. Raises TokenglassError."""
    if is_served(options.model):
        from tokenglass.cli.run.remote import prepare_remote

        return prepare_remote(text, options, opening)
    from tokenglass.cli.run.local import prepare_local

    return prepare_local(text, options, opening)


def is_served(model: ServedModelOptions) -> bool:
    """Whether -m names a server. Raises ParameterError where only a model of one is named."""
    from tokenglass.model.sources.server.address import is_address

    if is_address(model.model):
        return True
    if model.remote_model is not None:
        raise ParameterError("--remote-model names a model of a server; add -m http://HOST:PORT")
    return False

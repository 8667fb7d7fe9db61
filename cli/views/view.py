"""What every view is: something that consumes the records of a run as they come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.options.view import ViewName, ViewOptions
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.run import Run

if TYPE_CHECKING:
    import threading

    from tokenglass.model.inspection.explainer import Explainer
    from tokenglass.model.sampling.stages import ChoiceLog


ONE_TEXT = SearchOptions()


class View(Protocol):
    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        """Show the records as they come and return the last Finish. Errors of the iterator pass through."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a view is made for: the options, and whether one text comes or several."""

    options: ViewOptions
    interrupt: threading.Event
    search: SearchOptions = ONE_TEXT
    echo: bool = False  # the prompt before the text
    explainer: Explainer | None = None  # explains the steps that a live view draws
    log: ChoiceLog | None = None  # what the choices of a live view were made of, where that is kept


def make_view(name: ViewName, setting: Setting) -> View:
    """The view of that name on this process's stdout. Each has a file of its name here, with a function `make`.

    The Finish of several texts is that of the whole run.
    """
    view: View = import_module(f"tokenglass.cli.views.{name}").make(setting)
    if not setting.search.is_several:
        return view
    from tokenglass.cli.views.several import Counted

    return Counted(view)

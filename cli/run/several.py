"""Several texts of one run: what --num-samples and --beams ask for, decoded and shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.options.view import ColorBy, ColorWhen, ViewName, ViewOptions
from tokenglass.cli.views.view import View
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Record

if TYPE_CHECKING:
    import threading

    from tokenglass.model.decoding.beam_search import BeamParameters
    from tokenglass.model.decoding.job import Job


def is_several(search: SearchOptions) -> bool:
    return search.num_samples > 1 or search.beams > 1


def check_several(request: Request, search: SearchOptions, view: ViewOptions) -> Request:
    """The request as several texts need it. Raises ParameterError for what does not go with them."""
    if view.pause or view.color_by is not ColorBy.none:
        raise ParameterError("--pause and --color-by follow a single text; leave out --num-samples and --beams")
    if search.null and search.separator is not None:
        raise ParameterError("--null and --separator exclude each other; give one of them")
    if search.beams == 1:
        from tokenglass.model.decoding.samples import check_samples

        check_samples(request, search.num_samples)
        return request
    if search.num_samples > search.beams:
        raise ParameterError(f"--num-samples {search.num_samples} is more than --beams {search.beams} can give")
    from tokenglass.model.decoding.beams import check_beams

    beam_parameters(search)
    check_beams(request)
    return replace(request, sampling=request.sampling.replace(temperature=0.0))


def decode_several(job: Job, search: SearchOptions) -> Iterator[Record]:
    """The records of all texts. Raises ParameterError, PromptError."""
    from tokenglass.model.decoding.beams import decode_beams
    from tokenglass.model.decoding.samples import decode_samples

    if search.beams == 1:
        return decode_samples(job, search.num_samples)
    return decode_beams(job, beam_parameters(search))


def beam_parameters(search: SearchOptions) -> BeamParameters:
    """Raises ParameterError."""
    from tokenglass.model.decoding.beam_search import BeamParameters

    return BeamParameters(search.beams, search.length_penalty, search.early_stopping)


def several_view(
    name: ViewName, options: ViewOptions, search: SearchOptions, interrupt: threading.Event, *, echo: bool
) -> View:
    """The view of that name on this process's stdout; its Finish is that of the whole run."""
    from tokenglass.cli.views.several import Counted  # a single text does without it

    return Counted(view_of(name, options, search, interrupt, echo))


def view_of(
    name: ViewName, options: ViewOptions, search: SearchOptions, interrupt: threading.Event, echo: bool
) -> View:
    shown = search.num_samples

    from tokenglass.cli.terminal.console import make_console
    from tokenglass.cli.views.several import SeveralPipe, SeveralPlain

    if name is ViewName.jsonl:
        from tokenglass.cli.views.jsonl import JsonlView

        return JsonlView(sys.stdout.buffer)
    if name is ViewName.live:
        from tokenglass.cli.run.session import pace_of
        from tokenglass.cli.views.live_several import SeveralLive  # a pipe does without it

        console = make_console(sys.stdout, color=options.color.value)
        return SeveralLive(console, shown, options.panel.value, pace_of(options), interrupt)
    if sys.stdout.isatty() or options.color is ColorWhen.always:
        return SeveralPlain(make_console(sys.stdout, color=options.color.value), shown)
    return SeveralPipe(sys.stdout.buffer, echo, shown, search.between, search.behind)

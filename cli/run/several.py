"""Several texts of one run: what --num-samples and --beams ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.options.view import ColorBy, ViewOptions
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Record

if TYPE_CHECKING:
    from tokenglass.model.decoding.beam_search import BeamParameters
    from tokenglass.model.decoding.job import Job


def check_several(request: Request, search: SearchOptions, view: ViewOptions) -> Request:
    """The request as several texts need it. Raises ParameterError for what does not go with them."""
    if view.pause or view.stages or view.color_by is not ColorBy.none:
        raise ParameterError(
            "--pause, --stages and --color-by follow a single text; leave out --num-samples and --beams"
        )
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

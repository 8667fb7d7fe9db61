"""Several texts of one run: what --num-samples and --beams ask for."""

from __future__ import annotations

from dataclasses import replace

from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.options.view import ColorBy, ViewOptions
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError


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
    from tokenglass.cli.run.session import search_settings
    from tokenglass.model.decoding.beams import check_beams
    from tokenglass.model.sources.local import beam_parameters

    beam_parameters(search_settings(search, request.seed))
    check_beams(request)
    return replace(request, sampling=request.sampling.replace(temperature=0.0))

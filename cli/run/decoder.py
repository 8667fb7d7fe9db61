"""Whether a run can be decoded as the options ask for it, and who explains its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenglass.cli.options.search import SearchOptions
from tokenglass.model.decoding.modes import AUTOREGRESSIVE, MODES, ModeSettings
from tokenglass.model.errors import ParameterError

if TYPE_CHECKING:
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.engine.cache import KVCache
    from tokenglass.model.inspection.explainer import Explainer
    from tokenglass.model.loaded_model import LoadedModel, OpenedModel


def check_run(
    opened: OpenedModel, request: Request, mode: ModeSettings, search: SearchOptions, *, has_flow: bool
) -> None:
    """Find what cannot be run before the weights are loaded. Raises ParameterError."""
    several = [name for name, count in (("--beams", search.beams), ("--num-samples", search.num_samples)) if count > 1]
    is_autoregressive = mode.name == AUTOREGRESSIVE
    if several and not is_autoregressive:
        raise ParameterError(f"{several[0]} and --mode {mode.name} exclude each other")
    if has_flow and (several or not is_autoregressive or not request.use_cache):
        raise ParameterError("--flow explains one token at a time over a cache; leave out the other mode or --no-cache")
    MODES[mode.name].check(request, mode, opened.checkpoint.config.mask_token_id)
    if request.constraint is not None:
        request.constraint.check()


def new_explainer(loaded: LoadedModel, request: Request, cache: KVCache | None = None) -> tuple[KVCache, Explainer]:
    """A cache for the run, that one where it is given, and who explains its steps from it."""
    from tokenglass.model.inspection.explainer import Explainer

    cache = cache or loaded.engine.new_cache(planned_length=request.planned_length(loaded.engine.limit))
    return cache, Explainer(loaded.engine, cache, request.prompt_ids, loaded.tokenizer.piece)

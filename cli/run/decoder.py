"""The way of decoding that the options ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tokenglass.cli.options.mode import DraftBy, Mode, ModeOptions
from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.run.several import decode_several, is_several
from tokenglass.model.errors import ParameterError

if TYPE_CHECKING:
    import threading

    from tokenglass.model.decoding.drafts import Drafter
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.decoding.reveal import ParallelParameters
    from tokenglass.model.engine.cache import KVCache
    from tokenglass.model.inspection.explainer import Explainer
    from tokenglass.model.loading import LoadedModel, OpenedModel
    from tokenglass.model.records.steps import Record


def check_run(
    opened: OpenedModel, request: Request, mode: ModeOptions, search: SearchOptions, *, has_flow: bool
) -> None:
    """Find what cannot be run before the weights are loaded. Raises ParameterError."""
    several = [name for name, count in (("--beams", search.beams), ("--num-samples", search.num_samples)) if count > 1]
    is_autoregressive = mode.mode is Mode.autoregressive
    if several and not is_autoregressive:
        raise ParameterError(f"{several[0]} and --mode {mode.mode} exclude each other")
    if has_flow and (several or not is_autoregressive or not request.use_cache):
        raise ParameterError("--flow explains one token at a time over a cache; leave out the other mode or --no-cache")
    if mode.mode is Mode.parallel:
        from tokenglass.model.decoding.parallel import checked_mask

        parallel_parameters(mode)
        checked_mask(request, opened.checkpoint.config.mask_token_id)
    elif not is_autoregressive and not request.use_cache:
        raise ParameterError(f"--mode {mode.mode} verifies guesses over the cache; leave out --no-cache")
    elif mode.mode is Mode.speculative and mode.draft is DraftBy.model and mode.draft_model is None:
        raise ParameterError("--draft model needs --draft-model MODEL")
    if request.constraint is not None:
        request.constraint.check()


def records_of(
    loaded: LoadedModel,
    request: Request,
    mode: ModeOptions,
    search: SearchOptions,
    interrupt: threading.Event,
    cache: KVCache | None = None,
    draft: LoadedModel | None = None,
) -> Iterator[Record]:
    """The records of a run that was checked, over that cache where one is given; `draft` is the model that guesses."""
    engine, tokenizer = loaded.engine, loaded.tokenizer
    if is_several(search):
        return decode_several(loaded, request, interrupt, search)
    if mode.mode is Mode.autoregressive:
        from tokenglass.model.decoding.autoregressive import decode

        return decode(engine, tokenizer, request, interrupt, cache)
    if mode.mode is Mode.parallel:
        from tokenglass.model.decoding.parallel import decode_parallel

        mask_id = loaded.checkpoint.config.mask_token_id
        return decode_parallel(engine, tokenizer, request, interrupt, parallel_parameters(mode), mask_id)
    from tokenglass.model.decoding.speculative import decode_jacobi, decode_speculative

    cache = engine.new_cache(planned_length=request.planned_length(engine.limit))
    if mode.mode is Mode.jacobi:
        return decode_jacobi(engine, tokenizer, request, interrupt, cache, mode.block_size)
    drafter = make_drafter(loaded, draft, request, mode, cache)
    return decode_speculative(engine, tokenizer, request, interrupt, cache, drafter, mode.draft_length)


def explained(loaded: LoadedModel, request: Request) -> tuple[KVCache, Explainer]:
    """A cache for the run, and who explains its steps from it."""
    from tokenglass.model.inspection.explainer import Explainer

    cache = loaded.engine.new_cache(planned_length=request.planned_length(loaded.engine.limit))
    return cache, Explainer(loaded.engine, cache, request.prompt_ids, loaded.tokenizer.piece)


def parallel_parameters(mode: ModeOptions) -> ParallelParameters:
    """The one rule that was given; a threshold of 0.9 where none was."""
    from tokenglass.model.decoding.reveal import ParallelParameters

    rules = (mode.reveal, mode.passes, mode.threshold, mode.entropy_bound)
    return ParallelParameters(
        mode.block_size,
        reveal=mode.reveal,
        passes=mode.passes,
        threshold=0.9 if all(rule is None for rule in rules) else mode.threshold,
        entropy_bound=mode.entropy_bound,
    )


def make_drafter(
    loaded: LoadedModel, draft: LoadedModel | None, request: Request, mode: ModeOptions, cache: KVCache
) -> Drafter:
    """Where guesses come from."""
    from tokenglass.model.decoding.drafts import ModelDrafter, NgramDrafter, ParallelDrafter

    if mode.draft is DraftBy.parallel:
        return ParallelDrafter(loaded.engine, cache, loaded.checkpoint.config.mask_token_id)
    if draft is not None:
        return ModelDrafter(draft.engine, len(request.prompt_ids), loaded.engine.vocab_size)
    return NgramDrafter()

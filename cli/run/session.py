"""The parts of a run: the model, the name of the view, and what the trace tells of the options."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from tokenglass.cli.options.mode import DraftBy, ModeOptions
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.options.view import ViewName, ViewOptions
from tokenglass.cli.progress import watch
from tokenglass.cli.run.adapters import base_folder, open_adapters
from tokenglass.cli.say import say
from tokenglass.cli.terminal.opening import NO_OPENING, Opening
from tokenglass.cli.terminal.terminal import supports_live
from tokenglass.cli.text import nbytes
from tokenglass.cli.views.pace import Pace
from tokenglass.model.decoding.modes import ModeSettings
from tokenglass.model.errors import ParameterError
from tokenglass.model.progress import finish

if TYPE_CHECKING:
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.engine.memory import Caches
    from tokenglass.model.loaded_model import LoadedModel, OpenedModel
    from tokenglass.model.runs.run import Search
    from tokenglass.model.sampling.stages import ChoiceLog

LARGE = 256 * 2**20  # bytes of weights; fewer are read before a bar could be drawn


def open_model(options: ModelOptions, opening: Opening = NO_OPENING, *, watches_experts: bool = False) -> OpenedModel:
    """The model that the options name, without its weights. Raises TokenglassError."""
    from tokenglass.model import loading

    adapters = open_adapters(options.lora)
    return loading.open_model(
        base_folder(options.model, adapters, opening),
        dtype=options.dtype,
        cache_dtype=options.cache_dtype.value,
        device=options.device,
        quantize=options.quantize.value,
        backend=options.backend.value,
        threads=options.threads,
        adapters=adapters,
        watches_experts=watches_experts,
    )


def load(opened: OpenedModel, caches: Caches, opening: Opening = NO_OPENING) -> LoadedModel:
    """The model in memory, with room for what the run will keep; how far a large one is is shown.

    Raises TokenglassError.
    """
    loaded = load_quietly(opened, caches, opening)
    for note in loaded.notes:
        say(f"note: {note}")
    return loaded


def load_quietly(opened: OpenedModel, caches: Caches, opening: Opening = NO_OPENING) -> LoadedModel:
    """The same, without notes about it."""
    from tokenglass.model.loading import load_weights

    opening.show(f"loading {opened.name}, {nbytes(opened.nbytes)}")
    loading = load_weights(opened, caches)
    return watch(loading, opening) if opened.nbytes >= LARGE else finish(loading)


def open_draft(mode: ModeOptions, opened: OpenedModel) -> OpenedModel | None:
    """The smaller model that guesses, where one is asked for. Raises ParameterError for one of another tokenizer."""
    if mode.draft_model is None or mode.mode.value != "speculative" or mode.draft is DraftBy.parallel:
        return None
    draft = open_model(ModelOptions(mode.draft_model))
    if draft.tokenizer_fingerprint != opened.tokenizer_fingerprint:
        raise ParameterError(f"{draft.name} has another tokenizer than {opened.name}; its guesses cannot be read")
    return draft


def load_with_draft(
    opened: OpenedModel, draft: OpenedModel | None, caches: Caches, opening: Opening = NO_OPENING
) -> tuple[LoadedModel, LoadedModel | None]:
    """A model, and the one that guesses for it: the memory is asked for both, and for both caches."""
    if draft is None:
        return load(opened, caches, opening), None
    guesses = replace(caches, rows=1, negative_length=0)
    nbytes = draft.nbytes + guesses.nbytes(draft.checkpoint.config, draft.cache_dtype_on(draft.backend))
    loaded = load(opened, replace(caches, beside=nbytes), opening)
    here = caches.nbytes(opened.checkpoint.config, loaded.cache_dtype)  # it has not grown yet
    return loaded, load_quietly(draft, replace(guesses, beside=here), opening)


def settle_view(options: ViewOptions) -> ViewName:
    """What auto means here. Raises ParameterError for a view that cannot be shown, and for a speed that is none."""
    Pace.of(options)
    if options.jsonl:
        if options.view not in (ViewName.auto, ViewName.jsonl):
            raise ParameterError(f"--jsonl and --view {options.view} exclude each other")
        return ViewName.jsonl
    can_live = supports_live(sys.stdout, sys.stderr)
    if options.view is ViewName.live and not can_live:
        raise ParameterError("--view live needs a terminal of at least 20 columns and 6 lines on stdout and stderr")
    if options.view is ViewName.auto:
        return ViewName.live if can_live else ViewName.plain
    return options.view


def choice_log(request: Request, options: ViewOptions) -> ChoiceLog | None:
    """Where what the choices are made of is kept, if anybody may look at it. Raises ParameterError."""
    if not (options.stages or Pace.of(options).waits):
        return None
    from tokenglass.model.sampling.stages import ChoiceLog

    return ChoiceLog(request.sampling)


def search_settings(search: SearchOptions, seed: int) -> Search:
    """How many texts there will be, and the seeds of samples."""
    from tokenglass.model.runs.run import Search

    seeds: tuple[int, ...] = ()
    if search.beams == 1 and search.num_samples > 1:
        from tokenglass.model.decoding.samples import derived_seeds

        seeds = derived_seeds(seed, search.num_samples)
    return Search(search.num_samples, seeds, search.beams, search.length_penalty, search.early_stopping)


def mode_settings(mode: ModeOptions) -> ModeSettings:
    """The way of decoding with the rule that holds, also where none was given."""
    values = {field.name: getattr(mode, field.name) for field in fields(mode)}
    return ModeSettings(values.pop("mode").value, **{**values, "draft": mode.draft.value}).with_rule()

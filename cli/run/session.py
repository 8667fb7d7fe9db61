"""The parts of a run: the model, the view, and the description that the trace carries."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.view import ColorWhen, ViewName, ViewOptions
from tokenglass.cli.progress import loading_bar
from tokenglass.cli.run.model_folder import model_folder
from tokenglass.cli.say import say
from tokenglass.cli.terminal.terminal import make_console, supports_live
from tokenglass.cli.views.jsonl import JsonlView
from tokenglass.cli.views.plain import PipeView, PlainView
from tokenglass.cli.views.view import View
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.trace import SCHEMA_VERSION, Run

if TYPE_CHECKING:
    import threading

    from tokenglass.model.engine.memory import Caches
    from tokenglass.model.inspection.explainer import Explainer
    from tokenglass.model.loading import LoadedModel
    from tokenglass.model.text.tokenizer import Tokenizer

TOLD = (
    *("max_new_tokens", "min_new_tokens", "ignore_eos", "max_seconds", "stops", "bans", "negative_ids"),
    *("top", "prefill_chunk", "use_cache"),
)  # fields of the request that the trace tells as they are


def load(options: ModelOptions, caches: Callable[[Tokenizer], int | Caches]) -> tuple[LoadedModel, int]:
    """The model that the options name, in memory, and the number of CPU threads. Raises TokenglassError."""
    from tokenglass.model.loading import load_model

    loaded = load_model(
        model_folder(options.model),
        dtype=options.dtype,
        device=options.device,
        quantize=options.quantize.value,
        backend=options.backend.value,
        threads=options.threads,
        watch=loading_bar,
        caches=caches,
    )
    for note in loaded.notes:
        say(f"note: {note}")
    return loaded, loaded.threads


def settle_view(options: ViewOptions) -> ViewName:
    """What auto means here. Raises ParameterError for a view that cannot be shown."""
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


def make_view(
    name: ViewName,
    options: ViewOptions,
    interrupt: threading.Event,
    *,
    echo: bool = False,
    explainer: Explainer | None = None,
) -> View:
    """The view of that name on this process's stdout; a live one explains what it draws."""
    if name is ViewName.jsonl:
        return JsonlView(sys.stdout.buffer)
    if name is ViewName.live:
        from tokenglass.cli.views.live import LiveView  # a pipe does without it

        console = make_console(sys.stdout, color=options.color.value)
        live = LiveView(console, options.panel.value, options.color_by.value, options.pause, interrupt)
        return live if explainer is None else replace(live, explain=explainer.explained, follow=explainer.take)
    if sys.stdout.isatty() or options.color is ColorWhen.always:
        return PlainView(make_console(sys.stdout, color=options.color.value))
    return PipeView(sys.stdout.buffer, echo)


def describe(loaded: LoadedModel, text: str, request: Request, threads: int, **about: Any) -> Run:
    """Everything the run depends on, as the trace tells it; `about` are further parameters."""
    return Run(
        version=SCHEMA_VERSION,
        model=loaded.name,
        model_fingerprint=loaded.checkpoint.fingerprint,
        tokenizer_fingerprint=loaded.tokenizer_fingerprint,
        prompt=text,
        prompt_ids=request.prompt_ids,
        parameters={
            **asdict(request.sampling),
            **{name: getattr(request, name) for name in TOLD},
            "constraint": None if request.constraint is None else request.constraint.name,
            "healed": request.healed.decode("utf-8", "replace"),
            "eos_token_ids": sorted(request.eos_token_ids),
            "quantize": loaded.quantize,
            "backend": loaded.backend,
            **about,
        },
        seed=request.seed,
        dtype=loaded.dtype,
        device=loaded.device,
        threads=threads,
        versions={
            "tokenglass": installed("tokenglass"),
            "python": platform.python_version(),
            "torch": installed("torch"),
            "tokenizers": installed("tokenizers"),
        },
    )

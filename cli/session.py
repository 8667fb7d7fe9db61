"""The parts of a run: view, prompt, sampling, and the description that the trace carries."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, replace
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

from cli import options
from cli.say import say
from cli.terminal import make_console, supports_live
from cli.views.jsonl import JsonlView
from cli.views.plain import PipeView, PlainView
from cli.views.view import View
from model.decoding.request import Request, check_length, truncate
from model.errors import ParameterError, PromptError
from model.sampling.parameters import SamplingParameters, defaults_from, not_applied
from model.trace import SCHEMA_VERSION, Run

if TYPE_CHECKING:
    import threading

    from model.loading import LoadedModel


def settle_view(view: options.ViewName, *, jsonl: bool) -> options.ViewName:
    """What auto means here. Raises ParameterError for a view that cannot be shown."""
    if jsonl:
        if view not in (options.ViewName.auto, options.ViewName.jsonl):
            raise ParameterError(f"--jsonl and --view {view} exclude each other")
        return options.ViewName.jsonl
    can_live = supports_live(sys.stdout, sys.stderr)
    if view is options.ViewName.live and not can_live:
        raise ParameterError("--view live needs a terminal of at least 20 columns and 6 lines on stdout and stderr")
    if view is options.ViewName.auto:
        return options.ViewName.live if can_live else options.ViewName.plain
    return view


def make_view(
    name: options.ViewName,
    *,
    color: options.ColorWhen,
    echo: bool,
    panel: options.PanelSize,
    color_by: options.ColorBy,
    pause: bool,
    interrupt: threading.Event,
) -> View:
    """The view of that name on this process's stdout."""
    if name is options.ViewName.jsonl:
        return JsonlView(sys.stdout.buffer)
    if name is options.ViewName.live:
        from cli.views.live import LiveView  # a pipe does without it

        console = make_console(sys.stdout, color=color.value)
        return LiveView(console, panel.value, color_by.value, pause, interrupt)
    if sys.stdout.isatty() or color is options.ColorWhen.always:
        return PlainView(make_console(sys.stdout, color=color.value))
    return PipeView(sys.stdout.buffer, echo)


def encode(loaded: LoadedModel, text: str, *, chat: bool, system: str | None, messages: bool) -> tuple[int, ...]:
    """The prompt's token ids; with `chat`, of a conversation: one message, or a JSON list where `messages` allows it.

    Raises PromptError, ParameterError, TemplateError.
    """
    if not text:
        raise PromptError("the prompt is empty; give at least one character")
    if not chat:
        if system is not None:
            raise ParameterError("--system is part of a chat; add --chat")
        return loaded.tokenizer.encode(text)
    from model.chat import ChatTemplate, Message, parse_messages

    said = parse_messages(text) if messages and text.lstrip().startswith("[") else (Message("user", text),)
    opening = () if system is None else (Message("system", system),)
    return ChatTemplate.from_folder(loaded.checkpoint.folder).encode((*opening, *said), loaded.tokenizer)


def fit(
    loaded: LoadedModel, prompt_ids: tuple[int, ...], max_new_tokens: int, side: options.Side | None
) -> tuple[int, ...]:
    """Token ids cut to the context only where that was asked for. Raises PromptError."""
    limit = loaded.engine.limit
    if side is not None:
        room = max(limit - max_new_tokens, limit // 2)
        prompt_ids = truncate(prompt_ids, room, side.value, keep=len(loaded.tokenizer.start_ids))
    check_length(prompt_ids, limit)
    return prompt_ids


def choose_sampling(
    loaded: LoadedModel, temperature: float | None, top_k: int | None, top_p: float | None, min_p: float | None
) -> SamplingParameters:
    """The checkpoint's defaults, overridden by what was given; what is not applied is told."""
    generation_config = loaded.checkpoint.generation_config
    for name, value in not_applied(generation_config).items():
        say(f"note: generation_config.json asks for {name} {value}, which is not applied")
    given: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    return replace(defaults_from(generation_config), **{k: v for k, v in given.items() if v is not None})


def describe(loaded: LoadedModel, text: str, request: Request, threads: int) -> Run:
    """Everything the run depends on, as the trace tells it."""
    return Run(
        version=SCHEMA_VERSION,
        model=loaded.name,
        model_fingerprint=loaded.checkpoint.fingerprint,
        tokenizer_fingerprint=loaded.tokenizer_fingerprint,
        prompt=text,
        prompt_ids=request.prompt_ids,
        parameters={
            **asdict(request.sampling),
            "max_new_tokens": request.max_new_tokens,
            "top": request.top,
            "prefill_chunk": request.prefill_chunk,
            "use_cache": request.use_cache,
            "eos_token_ids": sorted(request.eos_token_ids),
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

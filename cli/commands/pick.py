"""pick: choose every token by hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenglass.cli.options.common import Debug
from tokenglass.cli.options.control import ControlOptions, TextOptions
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.passes import PassOptions
from tokenglass.cli.options.prompt import (
    Chat,
    KeepNewline,
    PrefillResponse,
    Prompt,
    PromptFile,
    PromptOption,
    PromptOptions,
    System,
    Truncate,
)
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.search import Guidance, Negative, SearchOptions
from tokenglass.cli.options.trace import TraceOptions
from tokenglass.cli.options.view import PANEL, Color, ColorWhen
from tokenglass.cli.run.trace import Keeper
from tokenglass.cli.terminal.opening import opening
from tokenglass.model.errors import ParameterError
from tokenglass.model.files import expand_home

if TYPE_CHECKING:
    from tokenglass.model.runs.branch_file import SavedTree

Save = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE", help="Where s saves the tree, as JSON; else a name is chosen and shown."),
]
Load = Annotated[
    Path | None,
    typer.Option("--load", metavar="FILE", help="Go on with a tree that s saved: its prompt, settings and branches."),
]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="TRACE", help="Branch off a kept run: its prompt, settings and texts are there."),
]
Candidates = Annotated[
    int, typer.Option("--candidates", min=1, max=1000, help="Candidates to choose from.", rich_help_panel=PANEL)
]


@dataclass(frozen=True, slots=True)
class PickPromptOptions:
    prompt: Prompt = None
    prompt_option: PromptOption = None
    prompt_file: PromptFile = None
    keep_newline: KeepNewline = False
    truncate: Truncate = None
    chat: Chat = False
    system: System = None
    prefill_response: PrefillResponse = None


@flat
def pick(
    prompt: PickPromptOptions,
    sampling: SamplingOptions,
    model: ModelOptions,
    passes: PassOptions,
    text_options: TextOptions,
    trace: TraceOptions,
    negative: Negative = None,
    guidance: Guidance = 1.0,
    save: Save = None,
    load: Load = None,
    source: From = None,
    candidates: Candidates = 10,
    color: Color = ColorWhen.auto,
    debug: Debug = False,
) -> None:
    """Choose every token by hand, go back, branch.

    Number keys pick a candidate, Enter lets the sampler draw, Backspace goes back, ? names every key. The text is
    printed when you quit. It needs a terminal, and a POSIX system.
    """
    check_terminal()
    if passes.no_cache:
        raise ParameterError("pick keeps its branches in the cache; leave out --no-cache")
    check_files(save, load, source, (prompt, sampling, text_options, negative, guidance))
    from tokenglass.cli.run.prompt import read_prompt

    options = PromptOptions(
        prompt.prompt,
        prompt.prompt_option,
        chat=prompt.chat,
        system=prompt.system,
        prefill_response=prompt.prefill_response,
    )
    saved = saved_tree(load, source)
    if saved is not None:
        text = saved.run.prompt
    else:
        text = read_prompt(options.parts, prompt.prompt_file, keep_newline=prompt.keep_newline)
    keeper = Keeper(trace, candidates)
    with opening(text) as first:
        from tokenglass.cli.run import session
        from tokenglass.cli.run.planting import Planting, check_tree
        from tokenglass.cli.run.request import add_negative, build_request, encode, fit, plan_caches
        from tokenglass.cli.terminal.console import make_console
        from tokenglass.cli.terminal.interrupts import soft_interrupt

        if saved is not None and model.model is None:
            model = replace(model, model=saved.run.model, lora=model.lora or list(saved.run.engine.adapters or ()))
        opened = session.open_model(model, first)
        if saved is None:
            control = ControlOptions(**asdict(text_options))
            prompt_ids = fit(opened, encode(opened, text, options), control, prompt.truncate)
            request = build_request(opened, prompt_ids, control, sampling, passes, candidates, chat=prompt.chat)
            request = add_negative(request, opened, options, SearchOptions(negative=negative, guidance=guidance))
        else:
            check_tree(saved, opened)
            request = replace(saved.run.request, top=candidates, prefill_chunk=passes.prefill_chunk)
        if request.constraint is not None:
            request.constraint.check()
        loaded = session.load(opened, plan_caches(request, opened), first)
        from tokenglass.cli.views.pick import PickView
        from tokenglass.cli.views.picking import Picking

        planting = Planting(loaded, keeper.widen(request), options, candidates)
        branches, run = planting.plant(text)
        trail = saved.restore(branches) if saved is not None else ()
        picking = Picking(
            branches,
            run,
            most=request.max_new_tokens,
            save_to=save,
            candidates=candidates,
            replant=planting if planting.can_change(text) else None,
            writer=keeper if keeper.is_on else None,
            trail=trail,
        )
        console = make_console(sys.stdout, color=color.value)
    with keeper, soft_interrupt() as interrupt:
        PickView(console, picking, interrupt).show()
        picking.finish()
        if interrupt.is_set():
            raise typer.Exit(interrupt.exit_code)


def saved_tree(load: Path | None, source: Path | None) -> SavedTree | None:
    """The tree to go on with, where a file of one or a trace is named. Raises TraceError."""
    if load is not None:
        from tokenglass.model.runs.branch_file import read_tree

        return read_tree(expand_home(str(load)))
    if source is not None:
        from tokenglass.model.runs.trace_tree import tree_of_trace

        return tree_of_trace(expand_home(str(source)))
    return None


def check_files(save: Path | None, load: Path | None, source: Path | None, options: Sequence[object]) -> None:
    """Raises ParameterError for a file that is there already, and for options that a saved tree has itself."""
    if save is not None and save.exists():
        raise ParameterError(f"--save {save}: already exists; give another name")
    if load is not None and source is not None:
        raise ParameterError("--load and --from exclude each other; give one of them")
    name = "--load" if load is not None else "--from" if source is not None else None
    if name is not None and tuple(options) != (PickPromptOptions(), SamplingOptions(), TextOptions(), None, 1.0):
        raise ParameterError(f"{name} brings its own prompt and settings; leave the others out")


def check_terminal() -> None:
    """Raises ParameterError where there is none to choose on."""
    from tokenglass.cli.terminal.terminal import is_terminal

    if os.name != "posix":
        raise ParameterError("pick reads keys as POSIX terminals send them, and this system has none; try generate")
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise ParameterError("pick needs a terminal on stdin and stdout; in a pipe, use generate")
    if os.environ.get("TERM", "").lower() in ("", "dumb", "unknown"):
        raise ParameterError(
            f"pick draws a whole screen, and TERM is {os.environ.get('TERM') or 'not set'}; use generate"
        )

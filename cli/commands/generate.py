"""generate: continue a prompt."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from tokenglass.cli.options.cache import CacheOptions
from tokenglass.cli.options.common import Debug, Version
from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.many import ManyOptions
from tokenglass.cli.options.mode import ModeOptions
from tokenglass.cli.options.model import ServedModelOptions
from tokenglass.cli.options.passes import PassOptions
from tokenglass.cli.options.prompt import PromptOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.options.trace import TraceOptions
from tokenglass.cli.options.view import ViewName, ViewOptions
from tokenglass.cli.say import say_dim, say_lines, write
from tokenglass.cli.terminal.opening import opening

if TYPE_CHECKING:
    from tokenglass.model.records.steps import Finish
    from tokenglass.model.runs.run import Run


@flat
def generate(
    prompt: PromptOptions,
    many: ManyOptions,
    control: ControlOptions,
    sampling: SamplingOptions,
    search: SearchOptions,
    mode: ModeOptions,
    view: ViewOptions,
    trace: TraceOptions,
    model: ServedModelOptions,
    passes: PassOptions,
    cache_options: CacheOptions,
    debug: Debug = False,
    version: Version = False,
) -> None:
    """Continue a prompt, one token at a time, and see every choice.

    Examples:
      generate "Once upon a time"              see each choice while it is made
      generate "The fox" -n 40 --seed 7        40 tokens; same seed, same text
      generate "The fox" --temperature 0       always the most probable token
      generate -m smollm2 --chat "Who are you?"       what a chat model answers
      cat notes.txt | generate - "In short:" > out.txt   the text, nothing else

    Where a model brings defaults of its own for sampling and lengths, they replace those named here.
    """
    if version:
        print_version()
        return
    if many.is_on:
        from tokenglass.cli.run.many.options import ManyRunOptions
        from tokenglass.cli.run.many.run import generate_many

        generate_many(ManyRunOptions(control, sampling, view, model, passes, many, prompt))
        return
    from tokenglass.cli.run.prompt import read_prompt

    text = read_prompt(prompt.parts, prompt.prompt_file, keep_newline=prompt.keep_newline)
    with opening(text, quiet=view.quiet) as first:
        from tokenglass.cli.run.prepared import RunOptions, prepare
        from tokenglass.cli.run.session import settle_view
        from tokenglass.cli.run.trace import Keeper
        from tokenglass.cli.terminal.interrupts import Interrupt, soft_interrupt
        from tokenglass.cli.views.view import Setting, make_view

        name, keeper, interrupt = settle_view(view), Keeper(trace, view.top), Interrupt()
        options = RunOptions(control, sampling, view, model, passes, prompt, search, mode, name, cache_options, keeper)
        prepared = prepare(text, options, first)
        run, records = keeper.keep(prepared.run, prepared.records(interrupt))
        setting = Setting(view, interrupt, search, echo=prompt.echo, explainer=prepared.explainer, log=prepared.log)
        shown = make_view(name, setting)
        if name is ViewName.live:
            first.hand_over()
    with keeper, soft_interrupt(interrupt):
        finish = shown.show(run, records)
        prepared.end(is_interrupted=interrupt.is_set())
    say_end(run, finish, view, name, is_new=sampling.seed is None)
    if finish.reason == "interrupt":
        raise typer.Exit(interrupt.exit_code)
    prepared.check()


def say_end(run: Run, finish: Finish, view: ViewOptions, name: ViewName, *, is_new: bool) -> None:
    """The summary where it was asked for; in a pipe the seeds, where the user does not know them (`is_new`)."""
    if view.stats:
        from tokenglass.cli.run.summary import summary

        say_lines(summary(run, finish))
    elif name is ViewName.plain and not sys.stdout.isatty() and not view.quiet:
        say_seeds(run, is_new=is_new)


def say_seeds(run: Run, *, is_new: bool) -> None:
    """What gives the same texts again, where the user does not know it."""
    if run.search.seeds or (is_new and not run.request.sampling.is_greedy):
        from tokenglass.cli.run.summary import seeds

        say_dim(seeds(run))


def print_version() -> None:
    from importlib.metadata import version

    write(f"tokenglass {version('tokenglass')}")

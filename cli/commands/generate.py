"""generate: continue a prompt."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from tokenglass.cli.exit_codes import CUT_OFF
from tokenglass.cli.options.cache import CacheOptions
from tokenglass.cli.options.common import Debug, Version
from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.mode import ModeOptions
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.prompt import PromptOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.options.trace import TraceOptions
from tokenglass.cli.options.view import ViewName, ViewOptions
from tokenglass.cli.say import say, say_dim, say_lines, write
from tokenglass.cli.terminal.opening import opening

if TYPE_CHECKING:
    from tokenglass.cli.run.cut_off import FitWatch
    from tokenglass.cli.terminal.interrupts import Interrupt
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.loading import LoadedModel
    from tokenglass.model.records.steps import Finish
    from tokenglass.model.runs.run import Run


@flat
def generate(
    prompt: PromptOptions,
    control: ControlOptions,
    sampling: SamplingOptions,
    search: SearchOptions,
    mode: ModeOptions,
    view: ViewOptions,
    trace: TraceOptions,
    model: ModelOptions,
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
    from tokenglass.cli.run.prompt import read_prompt

    text = read_prompt(prompt.parts, prompt.prompt_file, keep_newline=prompt.keep_newline)
    with opening(text) as first:
        from tokenglass.cli.run import session
        from tokenglass.cli.run.cache_files import CacheFiles
        from tokenglass.cli.run.decoder import check_run, new_explainer, records_of
        from tokenglass.cli.run.forks import check_forks, watch_forks
        from tokenglass.cli.run.request import plan_caches, read_request
        from tokenglass.cli.run.trace import Keeper
        from tokenglass.cli.terminal.interrupts import Interrupt, soft_interrupt
        from tokenglass.cli.views.view import Setting, make_view
        from tokenglass.model.runs.run import describe_run

        name = session.settle_view(view)
        keeper = Keeper(trace, view.candidates)
        cache_files = CacheFiles(cache_options, is_single=not search.is_several, use_cache=not model.no_cache)
        opened = session.open_model(model, first)
        draft = session.open_draft(mode, opened)
        request = keeper.widen(read_request(opened, text, prompt, control, sampling, search, view, model))
        settings = session.mode_settings(mode)
        check_run(opened, request, settings, search, has_flow=view.flow)
        check_forks(search.forks, request, is_single=not search.is_several)
        caches = plan_caches(request, opened, rows=max(search.num_samples, search.beams, 1 + 2 * search.forks))
        loaded, draft_model = session.load_with_draft(opened, draft, caches, first)
        is_kept = keeper.is_on or name is ViewName.jsonl
        run = describe_run(
            loaded,
            request,
            prompt.display_text(text),
            negative_prompt=search.negative,
            search=session.search_settings(search, request.seed),
            mode=settings,
            identify=is_kept,
        )
        cache = cache_files.begin(loaded, request, quiet=view.quiet, needed=search.forks > 0)
        cache, explainer = new_explainer(loaded, request, cache) if view.flow else (cache, None)
        forks = watch_forks(loaded, request, cache, search.forks)
        interrupt = Interrupt()
        log = session.choice_log(request, view) if name is ViewName.live and not search.is_several else None
        records = records_of(loaded, request, settings, search, interrupt, cache, draft_model, log)
        fit = fit_watch(loaded, request)
        for watcher in (fit, forks):
            records = records if watcher is None else watcher.watch(records)
        if explainer is not None and is_kept:
            records, explainer = explainer.watch(records), None  # each step, and not only those that are drawn
        run, records = keeper.keep(run, records)
        shown = make_view(name, Setting(view, interrupt, search, echo=prompt.echo, explainer=explainer, log=log))
        if name is ViewName.live:
            first.hand_over()
    with keeper, soft_interrupt(interrupt):
        finish = shown.show(run, records)
        if forks is not None and not interrupt.is_set():
            say_lines(forks.in_words)
        cache_files.end(loaded, cache)
    say_end(run, finish, view, name, is_new=sampling.seed is None)
    leave(finish, interrupt, fit)


def fit_watch(loaded: LoadedModel, request: Request) -> FitWatch | None:
    """Who sees whether the text fits its constraint, where it has one."""
    if request.constraint is None:
        return None
    from tokenglass.cli.run.cut_off import FitWatch

    return FitWatch(loaded, request)


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


def leave(finish: Finish, interrupt: Interrupt, fit: FitWatch | None) -> None:
    """Raises Exit where the run did not end as it was meant to; why a text was cut off is said."""
    if finish.reason == "interrupt":
        raise typer.Exit(interrupt.exit_code)
    if fit is not None and fit.num_cut_off:
        say(fit.in_words)
        raise typer.Exit(CUT_OFF)


def print_version() -> None:
    from importlib.metadata import version

    write(f"tokenglass {version('tokenglass')}")

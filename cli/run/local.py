"""A run of a model that is here, made ready: opened, checked, loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from tokenglass.cli.exit_codes import CUT_OFF
from tokenglass.cli.options.view import ViewName
from tokenglass.cli.run import session
from tokenglass.cli.run.cache_files import CacheFiles
from tokenglass.cli.run.decoder import check_run, new_explainer
from tokenglass.cli.run.forks import ForkWatch, check_forks, watch_forks
from tokenglass.cli.run.prepared import PreparedRun, RunOptions, Watcher
from tokenglass.cli.run.request import plan_caches, read_request
from tokenglass.cli.say import say, say_lines
from tokenglass.cli.terminal.opening import Opening
from tokenglass.model.runs.run import describe_run
from tokenglass.model.sources.local import LocalSource

if TYPE_CHECKING:
    from tokenglass.cli.run.cut_off import FitWatch
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.loaded_model import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun(PreparedRun):
    """A run over a cache that may be saved, with a look ahead where one was asked for."""

    source: LocalSource
    cache_files: CacheFiles
    forks: ForkWatch | None
    fit: FitWatch | None

    def end(self, *, is_interrupted: bool) -> None:
        """Raises OSError where the cache cannot be saved."""
        if self.forks is not None and not is_interrupted:
            say_lines(self.forks.in_words)
        self.cache_files.end(self.source.loaded, self.source.cache)

    def check(self) -> None:
        """Whether the text fits its constraint, where it has one."""
        if self.fit is not None and self.fit.num_cut_off:
            say(self.fit.in_words)
            raise typer.Exit(CUT_OFF)


def prepare_local(text: str, options: RunOptions, opening: Opening) -> LocalRun:
    """Raises TokenglassError; what cannot be run is found before the weights are loaded."""
    search, view, passes = options.search, options.view, options.passes
    is_single = not search.is_several
    cache_files = CacheFiles(options.cache, is_single=is_single, use_cache=not passes.no_cache)
    opened = session.open_model(options.model, opening, watches_experts=view.experts)
    draft = session.open_draft(options.mode, opened)
    request = options.keeper.widen(
        read_request(opened, text, options.prompt, options.control, options.sampling, search, view, passes)
    )
    mode = session.mode_settings(options.mode)
    check_run(opened, request, mode, search, has_flow=view.flow)
    check_forks(search.forks, request, is_single=is_single)
    caches = plan_caches(request, opened, rows=max(search.num_samples, search.beams, 1 + 2 * search.forks))
    loaded, draft_model = session.load_with_draft(opened, draft, caches, opening)
    run = describe_run(
        loaded,
        request,
        options.prompt.display_text(text),
        negative_prompt=search.negative,
        search=session.search_settings(search, request.seed),
        mode=mode,
        identify=options.is_kept,
    )
    cache = cache_files.begin(loaded, request, quiet=view.quiet, needed=search.forks > 0)
    cache, explainer = new_explainer(loaded, request, cache) if view.flow else (cache, None)
    log = session.choice_log(request, view) if options.view_name is ViewName.live and is_single else None
    forks, fit = watch_forks(loaded, request, cache, search.forks), fit_watch(loaded, request)
    watchers: list[Watcher] = [watcher for watcher in (fit, forks) if watcher is not None]
    if explainer is not None and options.is_kept:  # each step, and not only those that are drawn
        watchers.append(explainer)
        explainer = None
    keep = None if log is None else log.keep
    return LocalRun(
        run=run,
        request=request,
        source=LocalSource(loaded, mode, run.search, cache, draft_model, keep),
        watchers=tuple(watchers),
        explainer=explainer,
        log=log,
        cache_files=cache_files,
        forks=forks,
        fit=fit,
    )


def fit_watch(loaded: LoadedModel, request: Request) -> FitWatch | None:
    """Who sees whether the text fits its constraint, where it has one."""
    if request.constraint is None:
        return None
    from tokenglass.cli.run.cut_off import FitWatch

    return FitWatch(loaded, request)

"""Many prompts over one model: from the options of generate to lines of JSON."""

from __future__ import annotations

import secrets
import sys
from contextlib import closing, nullcontext
from typing import Any

import typer

from tokenglass.cli.exit_codes import ERROR
from tokenglass.cli.options.many import ManyOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.view import ViewName, ViewOptions
from tokenglass.cli.run import session
from tokenglass.cli.run.many.answers import Answers
from tokenglass.cli.run.many.options import ManyRunOptions
from tokenglass.cli.run.many.prompt_line import read_json_line, read_text_line
from tokenglass.cli.run.many.prompts import Ids, LinePrompts
from tokenglass.cli.run.many.read_ahead import ReadAhead
from tokenglass.cli.run.many.screen import Bar, Screen
from tokenglass.cli.run.many.source import ManySource
from tokenglass.cli.run.many.standing import Standing
from tokenglass.cli.run.numbered_lines import count_lines, number_lines, open_lines
from tokenglass.cli.run.prepared import is_served
from tokenglass.cli.run.prompt import STDIN
from tokenglass.cli.say import say, say_dim
from tokenglass.cli.terminal.interrupts import Interrupt, soft_interrupt
from tokenglass.cli.terminal.opening import Opening, opening
from tokenglass.cli.terminal.terminal import is_terminal
from tokenglass.model.errors import ParameterError
from tokenglass.model.files import expand_home
from tokenglass.model.runs.answer_file import AnswerFile
from tokenglass.model.runs.answers import Origin, settings_digest
from tokenglass.model.runs.in_order import InOrder
from tokenglass.model.runs.run import versions


def generate_many(options: ManyRunOptions) -> None:
    """Answer the lines of stdin or of a file. Raises TokenglassError, and Exit where not all could be answered."""
    many, sampling, view = options.many, options.sampling, options.view
    check_options(many, view)
    source = open_lines(None if many.each_line or str(many.prompts) == STDIN else many.prompts)
    total = count_lines(source)
    file = None if many.output is None else AnswerFile(expand_home(str(many.output)))
    with nullcontext() if file is None else closing(file):
        with opening() as first:
            texts = open_source(options, first)
        origin = origin_of(texts, sampling, view, file)
        if file is not None:
            file.check(origin)
        interrupt = Interrupt()
        screen = make_screen(view, total, interrupt, has_file=file is not None)
        answers = Answers(
            InOrder(screen.write if file is None else file.write, unordered=many.unordered),
            origin,
            has_choices=view.candidates is not None,
            terminal=file is None and is_terminal(sys.stdout),
            tell=screen.tell,
        )
        prompts = LinePrompts(
            ReadAhead(number_lines(source)),
            read_text_line if many.each_line else read_json_line,
            texts,
            answers,
            Ids(set() if file is None else file.done, have_ids=not many.each_line),
            fail_fast=many.fail_fast,
        )
        standing = Standing(prompts, answers, total)
        with soft_interrupt(interrupt), screen:
            for record in texts.records(prompts, interrupt, answers.failures):
                answers.add(record)
                screen.show(record, standing)
    if not view.quiet:
        say_dim(standing.in_words(has_new_seed=sampling.seed is None and not texts.requests.base.sampling.is_greedy))
    if interrupt.is_set() and standing.is_cut_short:
        say(standing.advice(many.output))
        raise typer.Exit(interrupt.exit_code)
    if answers.num_failed:
        raise typer.Exit(ERROR)


def open_source(options: ManyRunOptions, opening: Opening) -> ManySource[Any]:
    """The model that is meant, here or behind a server. Raises TokenglassError."""
    if is_served(options.model):
        from tokenglass.cli.run.many.served import open_served

        return open_served(options, opening)
    from tokenglass.cli.run.many.local import open_local

    return open_local(options, opening)


def check_options(many: ManyOptions, view: ViewOptions) -> None:
    """Raises ParameterError for options that exclude each other."""
    if many.each_line and many.prompts is not None:
        raise ParameterError("--each-line reads stdin, and --prompts a file; give one of them")
    session.settle_view(view)
    if view.view is ViewName.plain:
        raise ParameterError("--view plain has one text; many prompts are answered by lines of JSON")


def origin_of(
    source: ManySource[Any],
    sampling: SamplingOptions,
    view: ViewOptions,
    file: AnswerFile | None,
) -> Origin:
    """What all lines of this run have in common. A run that goes on with a file has the seed of its lines, unless
    another one is given, which `AnswerFile.check` refuses."""
    seed = sampling.seed
    if seed is None:
        seed = secrets.randbits(32) if file is None or file.origin is None else file.origin.run_seed
    settings = {
        **source.requests.settings(),
        **source.identity,
        "candidates": view.candidates,
        "version": versions()["tokenglass"],
    }
    return Origin(source.name, seed, settings_digest(settings))


def make_screen(view: ViewOptions, total: int | None, interrupt: Interrupt, *, has_file: bool) -> Screen:
    """The slots where --view live asks for them; else a bar, where there is a terminal on which nothing else is written
    or typed. Raises ParameterError where there is none for the slots."""
    if view.view is ViewName.live:
        from tokenglass.cli.terminal.console import make_console
        from tokenglass.cli.views.slots import SlotsSession

        return SlotsSession(make_console(sys.stdout, color=view.color.value), interrupt)
    is_free = has_file or not is_terminal(sys.stdout)
    is_drawn = is_free and is_terminal(sys.stderr) and not is_terminal(sys.stdin) and not view.quiet
    return Bar(total, interrupt, is_drawn=is_drawn)

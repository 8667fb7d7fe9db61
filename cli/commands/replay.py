"""replay: a kept run again, without its model."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from tokenglass.cli.options.common import Debug
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.options.trace import TraceFile
from tokenglass.cli.options.view import (
    PANEL,
    Color,
    ColorBy,
    ColorByOption,
    ColorWhen,
    Jsonl,
    Panel,
    PanelSize,
    Pause,
    Stats,
    View,
    ViewName,
    ViewOptions,
)
from tokenglass.cli.options.what_if import WhatIfOptions
from tokenglass.cli.run.trace_file import open_file
from tokenglass.cli.say import json_bytes, say, say_lines, write
from tokenglass.cli.terminal.opening import opening
from tokenglass.model.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenglass.cli.views.view import View as Shows
    from tokenglass.model.records.steps import Finish, Step
    from tokenglass.model.runs.playback import UnsureStretch
    from tokenglass.model.runs.trace_reader import TraceReader

INTERRUPTED, UNSURE = 130, 1
FASTEST = "max"
WORST = 10  # tokens shown that another model sees otherwise
BESIDE = 3  # candidates named beside an unsure token

Speed = Annotated[
    str, typer.Option("--speed", metavar="N|max", help="Times the recorded speed.", rich_help_panel=PANEL)
]
Begin = Annotated[int, typer.Option("--from", min=0, help="Show what comes before this step at once.")]
Unsure = Annotated[
    float | None,
    typer.Option(
        "--unsure", metavar="P", min=0, max=1, help="List the tokens whose final probability was below this, instead."
    ),
]
Fail = Annotated[bool, typer.Option("--fail", help="With --unsure: exit with 1 where there are such tokens.")]


@dataclass(frozen=True, slots=True)
class ReplayViewOptions:
    view: View = ViewName.auto
    jsonl: Jsonl = False
    panel: Panel = PanelSize.full
    color_by: ColorByOption = ColorBy.none
    pause: Pause = False
    stats: Stats = False
    color: Color = ColorWhen.auto


@flat
def replay(
    file: TraceFile,
    view: ReplayViewOptions,
    other: WhatIfOptions,
    speed: Speed = "1",
    begin: Begin = 0,
    unsure: Unsure = None,
    fail: Fail = False,
    debug: Debug = False,
) -> None:
    """Show a kept run again, at the speed it had, without its model.

    --trace FILE keeps a run. Keys: space pauses, the arrows go step by step, g to a token's number, / to a text,
    s to the next surprise, t to the next near-tie, n to another of the same.

    In a pipe the text comes at once, or with --jsonl the records again.

    With another temperature or another cut, such as --top-p 0.8, it tells where the same draws give another token;
    --continue writes that text.
    """
    factor = speed_factor(speed)
    if fail and unsure is None:
        raise ParameterError("--fail goes with --unsure P")
    with open_file(file) as trace:
        if unsure is not None:
            is_unsure = list_unsure(trace, unsure)
        elif other.rescore is not None:
            compare(trace, other, view)
        elif other.settings or other.continues:
            ask(trace, other, view)
        else:
            play(trace, view, factor, begin)
        if trace.note:
            say(f"note: {trace.note}")
    if unsure is not None and fail and is_unsure:
        raise typer.Exit(UNSURE)


def speed_factor(speed: str) -> float:
    """How many times as fast; infinity for max. Raises ParameterError."""
    try:
        factor = float("inf") if speed == FASTEST else float(speed)
    except ValueError:
        factor = 0
    if not factor > 0:
        raise ParameterError(f"--speed {speed}: expected a number above 0, or {FASTEST}")
    return factor


def play(trace: TraceReader, chosen: ReplayViewOptions, speed: float, begin: int) -> None:
    """Show every run of a trace in the view that was chosen. Raises TraceError, ParameterError."""
    from tokenglass.cli.run.session import settle_view
    from tokenglass.cli.run.summary import summary
    from tokenglass.cli.terminal.interrupts import soft_interrupt
    from tokenglass.cli.views.view import Setting, make_view
    from tokenglass.model.runs.playback import at_speed, end_each, split_runs

    options = view_options(chosen, speed=FASTEST)  # the records come at a speed of their own
    name = settle_view(options)
    if name is ViewName.jsonl:
        write_lines(trace)
        return
    is_live = name is ViewName.live  # it waits by itself, and obeys keys meanwhile
    waits = not is_live and sys.stdout.isatty()
    with soft_interrupt() as interrupt:
        finish: Finish | None = None
        for run, records in split_runs(trace):
            if finish is not None and not sys.stdout.isatty():
                sys.stdout.buffer.write(b"\n")  # one answer after another, as in a chat
            search = SearchOptions(num_samples=run.search.num_samples, beams=run.search.beams)
            view = make_view(name, Setting(options, interrupt, search))
            if is_live:
                view = pace_view(view, 0 if chosen.pause else speed, begin, trace.following)
            finish = view.show(
                run, end_each(at_speed(records, speed if waits else float("inf"), interrupt, begin), interrupt)
            )
            if chosen.stats:
                say_lines(summary(run, finish))
            if interrupt.is_set():
                raise typer.Exit(INTERRUPTED)


def view_options(chosen: ReplayViewOptions, *, speed: str | None = None) -> ViewOptions:
    return ViewOptions(
        view=chosen.view,
        jsonl=chosen.jsonl,
        panel=chosen.panel,
        color_by=chosen.color_by,
        speed=speed,
        pause=chosen.pause,
        color=chosen.color,
    )


def ask(trace: TraceReader, other: WhatIfOptions, chosen: ReplayViewOptions) -> None:
    """Tell what other settings would have drawn, or write it. Raises TokenglassError."""
    from tokenglass.cli.run.summary import summary
    from tokenglass.cli.run.what_if import go_on, tell
    from tokenglass.cli.terminal.interrupts import soft_interrupt

    if not other.continues:
        tell(trace, other.settings, as_json=chosen.jsonl or chosen.view is ViewName.jsonl)
        return
    with soft_interrupt() as interrupt:
        run, finish = go_on(trace, other.settings, ModelOptions(other.model), view_options(chosen), interrupt)
    if chosen.stats:
        say_lines(summary(run, finish))
    if interrupt.is_set():
        raise typer.Exit(INTERRUPTED)


def compare(trace: TraceReader, other: WhatIfOptions, chosen: ReplayViewOptions) -> None:
    """Show what another model makes of the recorded tokens. Raises TokenglassError."""
    with opening() as screen:
        screen.show("reading")
        from tokenglass.cli.run.rescore import rescore_trace
        from tokenglass.cli.views.diff import show

        difference = rescore_trace(
            trace, ModelOptions(other.rescore, dtype=other.dtype, quantize=other.quantize), screen
        )
    show(difference, count=WORST, as_json=chosen.jsonl or chosen.view is ViewName.jsonl, color=chosen.color.value)


def pace_view(view: Shows, speed: float, begin: int, reread: Callable[[int], Step | None]) -> Shows:
    """The live view at so many times the recorded speed, or at 0 with a key for each step, from one step on."""
    from tokenglass.cli.views.live import LiveView
    from tokenglass.cli.views.pace import Pace
    from tokenglass.cli.views.seeking import step_number
    from tokenglass.cli.views.several import Counted

    pace = Pace(speed, is_recorded=speed > 0)
    start = step_number(begin) if begin else None
    if isinstance(view, Counted):
        return replace(view, view=replace(view.view, pace=pace, start=start))  # type: ignore[type-var]  # every live view
    assert isinstance(view, LiveView)
    return replace(view, pace=pace, start=start, reread=reread)


def write_lines(trace: TraceReader) -> None:
    """The records as JSON lines, as they were."""
    from tokenglass.model.runs.trace import to_line

    for record in trace:
        sys.stdout.buffer.write(json_bytes(to_line(record), terminal=sys.stdout.isatty()) + b"\n")
    sys.stdout.buffer.flush()


def list_unsure(trace: TraceReader, threshold: float) -> bool:
    """Print the stretches where final probabilities fell below the threshold; whether there were any."""
    from tokenglass.model.records.steps import Step
    from tokenglass.model.runs.playback import Texts, split_runs, unsure_stretches

    count = 0
    for _, records in split_runs(trace):
        texts = Texts()
        for record in records:
            if isinstance(record, Step):
                texts.add(record)
        for stretch in unsure_stretches(texts, threshold):
            count += 1
            write(describe_stretch(stretch))
    say(f"{count:,} {'stretch' if count == 1 else 'stretches'} below {threshold:g}")
    return count > 0


def describe_stretch(stretch: UnsureStretch) -> str:
    """A line for where it is, and one for each of its tokens."""
    from tokenglass.cli.terminal.terminal import visible_piece
    from tokenglass.cli.widgets.widget import percent

    lines = [f"text {stretch.sequence}, token {stretch.start:,}: …{' '.join(stretch.before.split())}"]
    for choice in stretch.choices:
        others = [candidate for candidate in choice.candidates if candidate.token_id != choice.token_id][:BESIDE]
        beside = ", ".join(f"{visible_piece(other.piece)} {percent(other.prob)}" for other in others)
        lines.append(
            f"  {visible_piece(choice.piece)}  {percent(choice.prob)}" + (f"   beside {beside}" if beside else "")
        )
    return "\n".join(lines)

"""A comparison as tables and a plot, with what each column means."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokenglass.cli.terminal.console import ENDLESS
from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.terminal.wrapping import READABLE
from tokenglass.cli.text import count
from tokenglass.cli.widgets.comparison_columns import COLUMNS, SURE, Column
from tokenglass.cli.widgets.plot import Plot, Point
from tokenglass.cli.widgets.widget import DIM

Fact = dict[str, Any]


def show(facts: Fact, console: Console) -> None:
    """As many columns as there is room for."""
    for line in heading(facts, ascii_only=console.options.ascii_only):
        console.print(line)
    console.print()
    rows, marks = facts["rows"], marks_of(facts["rows"])
    shown = fitting(console, COLUMNS, lambda columns: table(rows, marks, columns))
    console.print(table(rows, marks, shown))
    console.print()
    if len(facts["prompts"]) > 1:
        sure = [column for column in COLUMNS if column.metric in SURE]
        sure = fitting(console, sure, lambda columns: table(rows, marks, columns, sure=True))
        console.print(Text(f"{100 * facts['confidence']:.0f} % intervals, by drawing the prompts anew", "bold"))
        console.print(table(rows, marks, sure, sure=True))
    else:
        console.print("One prompt gives no intervals; try a few.")
    console.print()
    console.print(plot(rows, marks))
    console.print()
    console.print(meanings(shown, READABLE if console.width < ENDLESS else None))
    console.print()
    for line in notes(facts, ascii_only=console.options.ascii_only):
        console.print(line)


def marks_of(rows: Sequence[Fact]) -> list[str]:
    """A letter for each mode, none for a reference."""
    letters = iter(string.ascii_lowercase)
    return [next(letters, "*") if row["kind"] == "mode" else "" for row in rows]


def heading(facts: Fact, *, ascii_only: bool) -> list[Text]:
    sampling, threads, seeds = facts["sampling"], facts["threads"], len(facts["seeds"])
    drawn = f"temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}"
    prompts, tokens, rounds = len(facts["prompts"]), facts["new_tokens"], facts["rounds"]
    model, scorer = (visible(part["model"], ascii_only=ascii_only) for part in (facts, facts["scorer"]))
    own = ": the model itself, which finds its own text probable" if facts["scorer"]["is_the_model"] else ""
    return [
        Text(
            f"{model}: {count(facts['parameters'])} parameters in {facts['weights']}, {facts['backend']}, "
            f"{threads} thread{'s' * (threads > 1)}"
        ),
        Text(
            f"{prompts} prompt{'s' * (prompts > 1)}, {seeds} seed{'s' * (seeds > 1)}, {tokens} tokens each, "
            + ("greedy" if sampling["temperature"] == 0 else drawn)
        ),
        Text(
            f"tok/s: medians of {rounds} interleaved round{'s' * (rounds > 1)}; bits/byte: {scorer} in "
            f"{facts['scorer']['weights']}{own}"
        ),
    ]


def table(rows: Sequence[Fact], marks: Sequence[str], columns: Sequence[Column], *, sure: bool = False) -> Table:
    """A row for each mode and reference; `sure` tells the ends of the intervals in place of the values."""
    grid = Table(box=None, pad_edge=False, header_style="dim")
    grid.add_column("")
    grid.add_column("mode", no_wrap=True)
    for column in columns:
        grid.add_column(column.heading, justify="right", no_wrap=True)
    for row, mark in zip(rows, marks, strict=True):
        if sure and not any(row["metrics"][column.metric] for column in columns):
            continue
        cells = [estimate_text(row["metrics"][column.metric], column.tell, sure=sure) for column in columns]
        style = None if row["kind"] == "mode" else DIM
        grid.add_row(Text(mark, "cyan"), row["name"], *cells, style=style)
    return grid


def estimate_text(estimate: Fact | None, tell: Callable[[float], str], *, sure: bool) -> str:
    if estimate is None:
        return "-"
    if not sure:
        return tell(estimate["value"])
    return "-" if estimate["low"] is None else f"{tell(estimate['low'])} to {tell(estimate['high'])}"


def fitting(console: Console, columns: Sequence[Column], make: Callable[[list[Column]], Table]) -> list[Column]:
    """The columns of the highest ranks, as many as fit."""
    endless = console.options.update(max_width=ENDLESS)
    rest = list(columns)
    while len(rest) > 1 and make(rest).__rich_measure__(console, endless).maximum > console.width:
        rest.remove(min(rest, key=lambda column: column.rank))
    return rest


def plot(rows: Sequence[Fact], marks: Sequence[str]) -> Plot | str:
    """Every mode by its speed and its coherence, with the level of the human text."""
    points = []
    for row, mark in zip(rows, marks, strict=True):
        x, y = (row["metrics"][name] for name in ("tokens_per_second", "bits_per_byte"))
        if x is not None and y is not None:
            points.append(Point(mark, x["value"], y["value"]))
    if not points:
        return "Nothing was written that could be scored."
    human = next((row["metrics"]["bits_per_byte"] for row in rows if row["name"] == "human"), None)
    level = None if human is None else human["value"]
    return Plot("tok/s", "bits/byte, lower is better", points, level, "dotted: the human text")


def meanings(columns: Sequence[Column], width: int | None) -> Table:
    """What each column says, in words, in lines of at most `width` columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", max_width=width)
    for column in columns:
        grid.add_row(Text(column.heading, "bold"), column.meaning)
    grid.add_row(
        Text("below", "bold"),
        "To read the columns by: true continuations written by a person, the same with their words shuffled, and "
        "tokens drawn one by one by their frequency. They are always of the stories that come with the program.",
    )
    return grid


def notes(facts: Fact, *, ascii_only: bool) -> list[Text]:
    """Whether the lossless modes kept their promise, and what was left out."""
    lines, differ, texts = [], facts["divergences"], facts["lossless_texts"]
    if texts:
        same = texts - len(differ)
        lines.append(Text(f"lossless modes: {same} of {texts} texts hold exactly the autoregressive tokens"))
    kind = "the best two differ by" if facts["sampling"]["temperature"] == 0 else "the draw's distance to the edge is"
    for one in differ:
        margin = "one text ends" if one["margin"] is None else f"{kind} {one['margin']:.1e}"
        lines.append(
            Text(f"  {one['mode']}, prompt {one['prompt'] + 1}, seed {one['seed']}, token {one['index'] + 1}: {margin}")
        )
    for one in facts["left_out"]:
        lines.append(Text(f"left out: {one['mode']}: {visible(one['reason'], ascii_only=ascii_only)}"))
    return lines

"""What score prints: a table, or JSON of several shapes."""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from tokenglass.cli.progress import watch_steps
from tokenglass.cli.say import one_line, write, write_json
from tokenglass.cli.terminal.console import ColorWhen, make_console
from tokenglass.cli.terminal.terminal import is_terminal
from tokenglass.model.measuring.completions import completion
from tokenglass.model.measuring.scoring import GivenText, Score, Tally
from tokenglass.model.records.codec import to_dict
from tokenglass.model.records.steps import Choice

COLUMNS = {
    "bits/byte": ("bits_per_byte", ".4f"),
    "perplexity": ("perplexity", ",.2f"),
    "bits": ("bits", ",.1f"),
    "tokens": ("scored_tokens", ",.0f"),
    "bytes": ("bytes", ",.0f"),
}
NONE = "-"
Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scoring:
    """The texts and the way to their tokens."""

    model: str
    start: str  # what the tokenizer puts before a text
    window: int
    stride: int
    names: Sequence[str]
    texts: Sequence[GivenText]
    choices: Callable[[GivenText], Iterator[Choice]]

    def notes(self) -> Iterator[str]:
        """What the numbers do not say of themselves."""
        for name, text in zip(self.names, self.texts, strict=True):
            of = f"{name}: " if len(self.names) > 1 else ""
            if len(text.token_ids) == text.added:
                yield f"{of}the text is empty; there is nothing to score"
            elif not text.added:
                only = "; it is the only one" if len(text.token_ids) == 1 else ""
                yield f"{of}nothing stands before the first token, so that it is not scored{only}"
            if len(text.token_ids) > self.window:
                seen = self.window - self.stride
                yield (
                    f"{of}{len(text.token_ids):,} tokens are read in windows of {self.window:,}, one every "
                    f"{self.stride:,}; each token sees at least {seen:,} before it, where there are any"
                )


def facts_of(text: GivenText, score: Score) -> Facts:
    """A score by the names that JSON uses; null is what nothing was scored for."""
    return {"first_token_scored": bool(text.added) if score.tokens else None, **sums(score)}


def sums(score: Score) -> Facts:
    return {
        "tokens": score.tokens,
        "scored_tokens": score.scored,
        "bytes": score.nbytes,
        "bits": score.bits,
        "bits_per_token": score.bits_per_token,
        "bits_per_byte": score.bits_per_byte,
        "perplexity": score.perplexity,
    }


def mean_of(rows: Sequence[Facts]) -> dict[str, float | None]:
    """The mean of each number over the texts that have it."""
    names = ("tokens", "scored_tokens", "bytes", "bits", "bits_per_token", "bits_per_byte", "perplexity")
    columns = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    return {name: sum(values) / len(values) if values else None for name, values in columns.items()}


def write_openai(scoring: Scoring) -> None:
    texts = [(text, scoring.choices(text)) for text in scoring.texts]
    write_json(completion(scoring.model, texts, int(time.time())))


def write_jsonl(scoring: Scoring) -> None:
    """Each token as it is scored; the line of a text comes behind its tokens."""
    for name, text in zip(scoring.names, scoring.texts, strict=True):
        tally = Tally(text)
        for choice in tally.watch(scoring.choices(text)):
            write_json({"record": "token", "file": name, "offset": text.offsets[choice.position], **to_dict(choice)})
        about = {"model": scoring.model, "window": scoring.window, "stride": scoring.stride}
        write_json({"record": "score", "file": name, **about, **facts_of(text, tally.score)})


def write_facts(scoring: Scoring) -> None:
    scores = list(score_all(scoring))
    rows = [facts_of(*pair) for pair in zip(scoring.texts, scores, strict=True)]
    facts = {
        "model": scoring.model,
        "window": scoring.window,
        "stride": scoring.stride,
        "texts": [{"file": name, **row} for name, row in zip(scoring.names, rows, strict=True)],
        "mean": mean_of(rows),
        "all": sums(functools.reduce(Score.plus, scores)),
    }
    write_json(facts, indent=2)


def show_table(scoring: Scoring, color: ColorWhen) -> None:
    """A row for each text as it is scored, then the mean of the rows and what all tokens give together."""
    table = ScreenTable(color) if is_terminal(sys.stdout) else PipeTable()
    scores, rows = [], []
    for name, text, score in zip(scoring.names, scoring.texts, score_all(scoring), strict=True):
        scores.append(score)
        rows.append(facts_of(text, score))
        table.add(name, rows[-1])
    if len(rows) > 1:
        table.add("mean", mean_of(rows))
        table.add("all", sums(functools.reduce(Score.plus, scores)))
    table.end()


class PipeTable:
    """Columns with tabs between them, and numbers as programs read them."""

    def __init__(self) -> None:
        write("\t".join((*COLUMNS, "file")))

    def add(self, name: str, row: Facts) -> None:
        write("\t".join((*(cell.replace(",", "") for cell in cells_of(row)), cell_of(name))))

    def end(self) -> None:
        pass


class ScreenTable:
    """The same drawn, once all rows are there."""

    def __init__(self, color: ColorWhen) -> None:
        self.console = make_console(sys.stdout, color=color)
        self.table = Table(box=None, pad_edge=False, header_style="bold")
        for column in COLUMNS:
            self.table.add_column(column, justify="right", no_wrap=True)
        self.table.add_column("file", overflow="fold")

    def add(self, name: str, row: Facts) -> None:
        self.table.add_row(*cells_of(row), cell_of(name))

    def end(self) -> None:
        self.console.print(self.table)


def cell_of(name: str) -> str:
    return one_line(name).replace("\t", " ")


def cells_of(row: Facts) -> list[str]:
    return [NONE if row[key] is None else format(row[key], spec) for key, spec in COLUMNS.values()]


def score_all(scoring: Scoring) -> Iterator[Score]:
    """The score of each text in turn; a bar on a terminal counts the tokens."""

    def steps() -> Iterator[Score | None]:
        for text in scoring.texts:
            tally = Tally(text)
            for _ in tally.watch(scoring.choices(text)):
                yield None
            yield tally.score

    total = sum(len(text.token_ids) for text in scoring.texts) + len(scoring.texts)
    count = itertools.count(1)
    scores = watch_steps(steps(), "scoring", total, lambda _: next(count))
    return (score for score in scores if score is not None)

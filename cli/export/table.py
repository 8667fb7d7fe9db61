"""A kept run as comma-separated values: a row for every choice, in the order of the trace."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from tokenglass.cli.export.kept_text import Runs
from tokenglass.model.records.steps import Choice, Finish, Step

NAMES = ("token_id", "status", "logprob", "prob", "rank", "entropy", "draw")  # of a choice, as a trace has them
COLUMNS = ("run", "step", "forward", "sequence", "phase", "position", "piece", "bytes", *NAMES, "cache", "seconds")
BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # owasp.org, "CSV Injection"


def table(runs: Runs) -> Iterator[str]:
    """The lines, the first with the names of the columns. Numbers are exact, an empty cell is not reported."""
    for number, (_, records) in enumerate(runs, start=1):
        if number == 1:
            yield line(COLUMNS)
        for record in records:
            if not isinstance(record, Finish):
                yield from (line(cells(number, record, choice)) for choice in record.choices)


def cells(run: int, step: Step, choice: Choice) -> tuple[object, ...]:
    """`piece` is for reading; `bytes` has the token's bytes in hexadecimal, whatever they are."""
    place = (run, step.index, step.forward, step.sequence, step.phase, choice.position)
    token = (without_formula(choice.piece.decode("utf-8", "replace")), choice.piece.hex())
    numbers = tuple(getattr(choice, name) for name in NAMES)
    return (*place, *token, *numbers, None if step.cache is None else step.cache.length, step.seconds)


def without_formula(text: str) -> str:
    """The text behind an apostrophe where a spreadsheet would compute it."""
    return f"'{text}" if text.startswith(BEGINS_FORMULA) else text


def line(values: tuple[object, ...]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(values)  # a writer whose lines end in \n would leave \r without quotes
    return out.getvalue().removesuffix("\r\n") + "\n"

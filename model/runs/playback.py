"""A kept run played again: its records, run by run, in the time they took. No model, no weights."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tokenglass.model.records.steps import Choice, Finish, Reason, Record, Step, Totals
from tokenglass.model.runs.run import Run

CONTEXT = 8  # tokens shown before a stretch
LONGEST = 60.0  # seconds that a step may make anybody wait


def split_runs(records: Iterable[Run | Record]) -> Iterator[tuple[Run, Iterator[Record]]]:
    """Each run of a trace (a chat has one a turn) with its records, which are to be consumed before the next."""
    ahead: list[Run] = []
    remaining = iter(records)

    def until_next() -> Iterator[Record]:
        for record in remaining:
            if isinstance(record, Run):
                ahead.append(record)
                return
            yield record

    for _ in until_next():
        raise AssertionError("a trace begins with its run")
    while ahead:
        yield ahead.pop(), until_next()


def at_speed(records: Iterable[Record], speed: float, interrupt: threading.Event, begin: int = 0) -> Iterator[Record]:
    """The same records, each pass when its time has come; those of steps before `begin` at once.

    `speed` is a factor of the recorded one. An interrupt ends them.
    """
    forward = None
    for record in records:
        if isinstance(record, Step) and record.index >= begin and record.forward != forward:
            forward = record.forward
            seconds = record.seconds / speed
            if seconds > 0:  # a trace may hold any number
                interrupt.wait(min(seconds, LONGEST))
        if interrupt.is_set():
            return
        yield record


def end_each(records: Iterable[Record], interrupt: threading.Event) -> Iterator[Record]:
    """The same records; where none is a Finish, as of a run that was killed, one for each text at the end."""
    totals: dict[int, Totals] = {}
    is_ended = False
    for record in records:
        if isinstance(record, Step):
            totals[record.sequence] = totals.get(record.sequence, Totals()).plus(record)
        else:
            is_ended = True
        yield record
    if not is_ended:
        reason: Reason = "interrupt" if interrupt.is_set() else "error"
        yield from (Finish(number, reason, "", total) for number, total in (totals or {0: Totals()}).items())


@dataclass(slots=True)
class Texts:
    """The choices of each text that stand, by sequence, whatever was taken back or branched off."""

    choices: dict[int, list[Choice]] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        text = self.choices.setdefault(step.sequence, [])
        if step.parent in self.choices and step.parent != step.sequence and step.choices:
            first = step.choices[0].position
            text[:] = [choice for choice in self.choices[step.parent] if choice.position < first]
        if step.rewound_to is not None:
            text[:] = [choice for choice in text if choice.position < step.rewound_to]
        text += step.settled
        if any(before.position > after.position for before, after in pairwise(text[-1 - len(step.settled) :])):
            text.sort(key=lambda choice: choice.position)  # a block is not filled from left to right


@dataclass(frozen=True, slots=True)
class UnsureStretch:
    """Tokens in a row that were less probable than a threshold when they were drawn, and what stood before them."""

    sequence: int
    start: int  # number of the first token, from 1
    before: str
    choices: tuple[Choice, ...]


def unsure_stretches(texts: Texts, threshold: float) -> Iterator[UnsureStretch]:
    """The stretches of every text whose tokens have a final probability below the threshold.

    A token whose probability was not reported, or that was forced, belongs to none.
    """
    for sequence, choices in sorted(texts.choices.items()):
        stretch: list[Choice] = []
        for number, choice in enumerate([*choices, None]):
            if choice is not None and is_unsure(choice, threshold):
                stretch.append(choice)
            elif stretch:
                start = number - len(stretch)
                before = b"".join(each.piece for each in choices[max(0, start - CONTEXT) : start])
                yield UnsureStretch(sequence, start + 1, before.decode("utf-8", "replace"), tuple(stretch))
                stretch = []


def is_unsure(choice: Choice, threshold: float) -> bool:
    return choice.prob is not None and choice.prob < threshold and choice.status != "forced"

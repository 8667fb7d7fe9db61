"""One pass after another until every text of a run has ended: the steps, numbered, timed and added up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from tokenglass.model.decoding.ending import end_always
from tokenglass.model.decoding.request import Request
from tokenglass.model.records.steps import Block, CacheUsage, Choice, Finish, Phase, Reason, Record, Step, Totals


class Interrupt(Protocol):
    """A flag that is read between passes, such as a threading.Event."""

    def is_set(self) -> bool: ...


class Recorder:
    """The numbers of a run. `begin` starts a pass; every step until the next one belongs to it, and shares its seconds,
    which its first step ends."""

    def __init__(self) -> None:
        self._began = self._started = time.perf_counter()
        self._seconds: float | None = None  # of this pass, once it has a step
        self._forwards = self._steps = 0
        self._totals: dict[int, Totals] = {}
        self._texts: dict[int, list[str]] = {}  # what each sequence wrote, piece by piece

    def begin(self) -> float:
        """A pass begins now; the seconds since the run began."""
        self._forwards += 1
        self._started, self._seconds = time.perf_counter(), None
        return self._started - self._began

    def step(
        self,
        phase: Phase,
        num_input_tokens: int,
        cache: CacheUsage | None,
        choices: tuple[Choice, ...] = (),
        text: str = "",
        *,
        sequence: int = 0,
        parent: int | None = None,
        rewound_to: int | None = None,
        block: Block | None = None,
    ) -> Step:
        """What this pass did for one sequence."""
        if self._seconds is None:
            self._seconds = time.perf_counter() - self._started
        step = Step(
            index=self._steps,
            forward=self._forwards - 1,
            sequence=sequence,
            phase=phase,
            num_input_tokens=num_input_tokens,
            choices=choices,
            text=text,
            cache=cache,
            seconds=self._seconds,
            parent=parent,
            rewound_to=rewound_to,
            block=block,
        )
        self._steps += 1
        self._totals[sequence] = self.totals(sequence).plus(step)
        if text:
            self._texts.setdefault(sequence, []).append(text)
        return step

    def branch(self, parent: int, sequence: int) -> None:
        """A new sequence goes on from what its parent has cost and written so far."""
        self._totals[sequence] = self.totals(parent)
        self._texts[sequence] = self._texts.get(parent, [])[:]

    def totals(self, sequence: int) -> Totals:
        return self._totals.get(sequence, Totals())

    def finish(self, end: Finish) -> Finish:
        """The same end with the whole text. The sequence is forgotten: a run may have any number of them."""
        self._totals.pop(end.sequence, None)
        return replace(end, whole_text="".join([*self._texts.pop(end.sequence, ()), end.text]))


class Texts(Protocol):
    """The texts of one run, and how they end."""

    @property
    def are_open(self) -> bool:
        """Whether another pass is needed."""

    def end(self, reason: Reason) -> None:
        """End those that are open, as they are."""

    def finishes(self, totals: Callable[[int], Totals]) -> Iterable[Finish]:
        """The ends of those that have ended and were not asked for yet; `totals` are those of a sequence."""


def record(
    texts: Texts, decode_once: Callable[[Recorder], Iterable[Step]], request: Request, interrupt: Interrupt
) -> Iterator[Record]:
    """The steps of one pass after another, and a Finish for each text when it ends.

    An interrupt or the time that is up ends all texts before the next pass; so does an exception, which is raised
    behind the Finishes.
    """
    return record_until(texts, decode_once, lambda seconds: reason_to_stop_now(request, interrupt, seconds))


def record_until(
    texts: Texts, decode_once: Callable[[Recorder], Iterable[Step]], reason_now: Callable[[float], Reason | None]
) -> Iterator[Record]:
    """The same, where `reason_now` says, of the seconds since the run began, why all texts end before the next pass."""
    recorder = Recorder()

    def records() -> Iterator[Record]:
        while texts.are_open:
            reason = reason_now(recorder.begin())
            if reason is None:
                yield from decode_once(recorder)
            else:
                texts.end(reason)
            yield from map(recorder.finish, texts.finishes(recorder.totals))

    def failures() -> Iterable[Finish]:
        texts.end("error")
        return map(recorder.finish, texts.finishes(recorder.totals))

    return end_always(records(), failures)


def reason_to_stop_now(request: Request, interrupt: Interrupt, seconds: float) -> Reason | None:
    """Why a run ends before its next pass."""
    if interrupt.is_set():
        return "interrupt"
    return "time" if request.max_seconds is not None and seconds >= request.max_seconds else None

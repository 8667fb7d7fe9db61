"""One text written in one mode, timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tokenglass.model.decoding.request import Request
from tokenglass.model.measuring.comparison.modes import Variant
from tokenglass.model.records.steps import Step


@dataclass(frozen=True, slots=True)
class TimedRun:
    """What a mode made of a request. Seconds are by the clock on the wall, the prompt's passes included."""

    token_ids: tuple[int, ...]  # the new ones
    text: str
    forwards: int  # passes of the model, the prompt's included
    positions: int  # computed in them
    seconds: float
    first_seconds: float  # until the first text could be printed


def time_run(mode: Variant, request: Request) -> TimedRun:
    """Decode to the end. Raises TokenglassError, also for what the mode cannot do."""
    began = time.perf_counter()
    first: float | None = None
    token_ids: dict[int, int] = {}
    text, forwards, positions = "", 0, 0
    for record in mode.begin(request):
        text += record.text
        if first is None and text:
            first = time.perf_counter() - began
        if not isinstance(record, Step):
            continue
        if not (record.phase == "draft" and mode.drafts_elsewhere):
            forwards += 1
            positions += record.num_input_tokens
        if record.rewound_to is not None:
            token_ids = {position: k for position, k in token_ids.items() if position < record.rewound_to}
        token_ids.update((choice.position, choice.token_id) for choice in record.settled if choice.token_id is not None)
    seconds = time.perf_counter() - began
    ids = tuple(token_ids[position] for position in sorted(token_ids))
    return TimedRun(ids, text, forwards, positions, seconds, seconds if first is None else first)


@dataclass(slots=True)
class TimedRuns:
    """All runs of one mode: for each request one for each round."""

    mode: Variant
    by_request: list[list[TimedRun]] = field(default_factory=list)

    def seconds(self, request: int) -> float:
        """The median over the rounds."""
        return statistics.median(run.seconds for run in self.by_request[request])

    def first_seconds(self, request: int) -> float:
        return statistics.median(run.first_seconds for run in self.by_request[request])

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each round over all requests."""
        rounds = list(zip(*self.by_request, strict=True))
        return [sum(len(run.token_ids) for run in runs) / sum(run.seconds for run in runs) for runs in rounds]


def interleave(modes: Sequence[Variant], requests: Sequence[Request], rounds: int) -> Iterator[list[TimedRuns]]:
    """The runs so far, after each: round after round and request after request, every mode in turn, so that what the
    machine does besides meets all of them alike."""
    every = [TimedRuns(mode, [[] for _ in requests]) for mode in modes]
    for _ in range(rounds):
        for place, request in enumerate(requests):
            for runs in every:
                runs.by_request[place].append(time_run(runs.mode, request))
                yield every

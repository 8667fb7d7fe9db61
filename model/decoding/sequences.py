"""Texts that go on and end one by one: one, or the samples of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.records.steps import Finish, Reason, Totals


class Sequences:
    """The sequences whose end nobody was told yet, in order."""

    def __init__(self, sequences: Iterable[Sequence]):
        self._unfinished = list(sequences)

    @property
    def are_open(self) -> bool:
        return any(sequence.reason is None for sequence in self._unfinished)

    def end(self, reason: Reason) -> None:
        for sequence in self._unfinished:
            sequence.reason = reason

    def finishes(self, totals: Callable[[int], Totals]) -> Iterator[Finish]:
        for sequence in [sequence for sequence in self._unfinished if sequence.reason is not None]:
            finish = sequence.finish(totals(sequence.number))
            self._unfinished.remove(sequence)
            yield finish

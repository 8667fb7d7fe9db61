"""Which experts the steps of a running decode took. No torch here: both engines tell it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from tokenglass.model.records.steps import LayerExperts, Record, Step


class RoutedEngine(Protocol):
    """An engine whose model has mixtures of experts."""

    watches_experts: bool  # whether it keeps what the last pass took

    def last_experts(self) -> tuple[LayerExperts, ...]:
        """What the last position of the last pass took, layer by layer."""


class ExpertWatch:
    """Follows the records of one text that is decoded one token at a time, and adds to each choice its experts."""

    def __init__(self, engine: RoutedEngine):
        engine.watches_experts = True
        self._engine = engine

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            yield self.with_experts(record) if isinstance(record, Step) else record

    def with_experts(self, step: Step) -> Step:
        """The step whose first choice, the one that was made from logits, has the experts of the position before it."""
        if not step.choices or step.choices[0].logprob is None:
            return step
        first, *rest = step.choices
        return replace(step, choices=(replace(first, experts=self._engine.last_experts()), *rest))

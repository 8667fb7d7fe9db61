"""Numbers the steps of one run and adds them up."""

from __future__ import annotations

import time
from typing import Any

from tokenglass.model.engine.cache import KVCache
from tokenglass.model.records.steps import Choice, Finish, Phase, Reason, Step, Totals


class Recorder:
    """Makes the Steps and the Finish of one sequence."""

    def __init__(self, sequence: int = 0):
        self.sequence = sequence
        self.totals = Totals()
        self._began = self._started = time.perf_counter()

    def start(self) -> float:
        """A step begins now; the seconds since the run began."""
        self._started = time.perf_counter()
        return self._started - self._began

    def step(
        self,
        phase: Phase,
        num_input_tokens: int,
        cache: KVCache | None,
        choices: tuple[Choice, ...] = (),
        text: str = "",
        **more: Any,
    ) -> Step:
        """What happened since `start`; `more` are further fields of a Step."""
        step = Step(
            index=self.totals.forwards,
            forward=self.totals.forwards,
            sequence=self.sequence,
            phase=phase,
            num_input_tokens=num_input_tokens,
            choices=choices,
            text=text,
            cache=cache.usage() if cache is not None else None,
            seconds=time.perf_counter() - self._started,
            **more,
        )
        self.totals = self.totals.plus(step)
        return step

    def finish(self, reason: Reason, text: str) -> Finish:
        return Finish(self.sequence, reason, text, self.totals)

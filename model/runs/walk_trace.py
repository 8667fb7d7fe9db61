"""The trace of a text that is chosen by hand: a step for each token, and one for each way back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tokenglass.model.decoding.branches import Branches, Node
from tokenglass.model.records.steps import Finish, Phase, Step, Totals
from tokenglass.model.runs.run import Run


class Writer(Protocol):
    def add(self, record: Run | Step | Finish) -> None: ...


@dataclass(slots=True)
class WalkTrace:
    """Follows the place in a tree, and writes what has changed. No text is printed before the end, so that no step has
    any: a token may be taken back."""

    writer: Writer
    run: Run
    branches: Branches
    _path: tuple[Node, ...] = ()
    _steps: int = 0
    _totals: Totals = field(default_factory=Totals)
    _computed: int = 0
    _seconds: float = 0.0

    def __post_init__(self) -> None:
        self.writer.add(self.run)

    def follow(self) -> None:
        """Write the way from the place that was written last to the one where the branches are now."""
        path, common = self.branches.here.path(), 0
        while common < min(len(path), len(self._path)) and path[common] is self._path[common]:
            common += 1
        rewound_to = self.run.prompt_length + common if common < len(self._path) else None
        if rewound_to is not None and common == len(path):
            self._write((), rewound_to)
        for node in path[common:]:
            self._write((node,), rewound_to)
            rewound_to = None
        self._path = path

    def finish(self) -> None:
        """The end of the run, with its text."""
        self.follow()
        here = self.branches.here
        self.writer.add(Finish(0, here.reason or "interrupt", self.branches.text(here), self._totals))

    def _write(self, nodes: tuple[Node, ...], rewound_to: int | None) -> None:
        """One step, with what was computed since the last one."""
        cache = self.branches.cache
        phase: Phase = "decode" if self._steps else "prefill"
        step = Step(
            index=self._steps,
            forward=self._steps,
            sequence=0,
            phase=phase,
            num_input_tokens=cache.computed - self._computed,
            choices=tuple(node.choice for node in nodes if node.choice is not None),
            text="",
            cache=cache.row.usage(),
            seconds=cache.seconds - self._seconds,
            rewound_to=rewound_to,
        )
        self._computed, self._seconds = cache.computed, cache.seconds
        self._steps += 1
        self._totals = self._totals.plus(step)
        self.writer.add(step)

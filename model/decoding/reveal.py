"""How a block of masks is filled: how long it is, and how many of its places a pass reveals. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from tokenglass.model.errors import ParameterError

RULES = ("reveal", "passes", "threshold", "entropy_bound")


@dataclass(frozen=True, slots=True)
class ParallelParameters:
    """The length of a block, and exactly one rule for how many places a pass reveals (always at least one).

    `reveal`: that many, the most certain ones. `passes`: as many as fill the block in that many passes; 1 is all at
    once. The other two always reveal the first place, whose text before it is complete, and with it `threshold`: those
    whose most probable token has this raw probability (Fast-dLLM, Wu et al. 2025, arXiv 2505.22618, which reveals the
    most certain place where none has it); `entropy_bound`: the most certain ones while the raw entropies, the largest
    left out, sum to at most this many bits (EB-Sampler, Ben-Hamu et al. 2025, arXiv 2505.24857). Raises ParameterError.
    """

    block_size: int = 16
    reveal: int | None = None
    passes: int | None = None
    threshold: float | None = None
    entropy_bound: float | None = None

    def __post_init__(self) -> None:
        names = [name for name in RULES if getattr(self, name) is not None]
        if len(names) != 1:
            raise ParameterError(f"expected one of {', '.join(RULES)}; {' and '.join(names) or 'none'} is given")
        for name in ("block_size", "reveal", "passes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"{name} is {value}; expected at least 1")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ParameterError(f"threshold is {self.threshold}; expected more than 0, at most 1")
        if self.entropy_bound is not None and not 0 <= self.entropy_bound < math.inf:
            raise ParameterError(f"entropy_bound is {self.entropy_bound}; expected 0 bits or more")

    def pick(self, hidden: Iterable[int], peaks: Sequence[float], entropies: Sequence[float], done: int) -> list[int]:
        """Which of the `hidden` places (one or more) a pass reveals, after `done` passes over the block.

        `peaks` (highest raw probability) and `entropies` (bits) are those of all places. The last place comes last.
        """
        hidden, last = sorted(hidden), len(peaks) - 1
        doubts = [-peak for peak in peaks] if self.entropy_bound is None else entropies
        first = hidden[0] if self.reveal is None and self.passes is None else None
        order = sorted(hidden, key=lambda place: (place != first, place == last, doubts[place], place))
        count = self._count([peaks[p] for p in order], [entropies[p] for p in order], done)
        return order[: max(1, count)]  # one also where the numbers are none: the sampler then says so

    def _count(self, peaks: list[float], entropies: list[float], done: int) -> int:
        if self.reveal is not None:
            return self.reveal
        if self.passes is not None:
            return math.ceil(len(peaks) / max(1, self.passes - done))
        if self.threshold is not None:
            least = self.threshold
            return 1 + len(list(takewhile(lambda peak: peak >= least, peaks[1:])))
        bound = self.entropy_bound or 0.0
        sums = zip(accumulate(entropies), accumulate(entropies, max), strict=True)
        return len(list(takewhile(lambda both: both[0] <= bound + both[1], sums)))

"""Processors that change every token's score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tokenglass.model.errors import ParameterError
from tokenglass.model.sampling import lazy_numpy as np
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.settings import number

if TYPE_CHECKING:
    from tokenglass.model.sampling.provenance import Floats
    from tokenglass.model.sampling.scores import Scores


@dataclass(frozen=True, slots=True)
class Temperature(Processor):
    """Divide by the temperature: below 1 sharpens, above 1 flattens.

    A token whose probability is then too small for a number cannot be drawn: the temperature has cut it.
    """

    name: ClassVar[str] = "temperature"
    only_for_draws: ClassVar[bool] = True
    temperature: float = number(
        "temperature",
        0.8,
        least=0,
        expected="0 (greedy) or more",
        off=1.0,
        flags=("-t", "--temperature"),
        help="0 is greedy, higher is bolder.",
        in_transformers=1.0,
    )

    @property
    def is_on(self) -> bool:
        """At 1 too, which changes nothing, so that a chain names it; 0 has no use for it."""
        return self.temperature > 0

    def __call__(self, scores: Scores) -> None:
        if self.temperature < 1:
            scores.mark_underflow(self.name, self.temperature)
        if self.temperature != 1:
            scores.divide(self.temperature)


@dataclass(frozen=True, slots=True)
class Guidance(Processor):
    """Away from the negative prompt: scale * (log p - log n) + log n (Sanchez et al. 2023, arXiv 2306.17806).

    n are the probabilities under the negative prompt. A token is moved by (scale - 1) * (log p - log n); one that is
    impossible under the negative prompt is left as it is. What comes after works on these numbers, no longer on
    logits (as in transformers). Raises ParameterError where there is no negative prompt.
    """

    name: ClassVar[str] = "guidance"
    scale: float = number(
        "guidance_scale",
        1.0,
        least=-1e3,
        most=1e3,
        expected="between -1000 and 1000; 1 is off",
        flags=(),  # --guidance stands beside --negative
        help="How far from the negative prompt; 1 is off.",
    )

    def __call__(self, scores: Scores) -> None:
        if scores.context.negative is None:
            raise ParameterError("guidance needs a negative prompt to go away from; give one, or scale 1")
        logprobs = scores.whole - scores.peak - math.log(scores.mass)
        negative = log_softmax(np.asarray(scores.context.negative, np.float64))
        is_possible = (logprobs > -math.inf) & (negative > -math.inf)
        change = np.zeros(scores.size)
        np.subtract(logprobs, negative, out=change, where=is_possible)
        change *= self.scale - 1
        scores.reweigh(self.name, logprobs + change, change)


RESCALINGS: tuple[type[Processor], ...] = (Temperature,)
"""In their default order; guidance comes first of all."""


def log_softmax(logits: Floats) -> Floats:
    """Logarithms of probabilities, of logits (vocab,) that hold a finite maximum."""
    below = logits - logits.max()
    return below - math.log(float(np.exp(below).sum()))

"""How sure a ratio over a few prompts is. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenglass.model.measuring.comparison.texts import Share

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio, and the ends of its interval; None where a single prompt cannot tell."""

    value: float
    low: float | None
    high: float | None


def estimate(prompts: Sequence[Sequence[Share]], resamples: int = RESAMPLES) -> Estimate | None:
    """The sum of the parts over the sum of the wholes, with a percentile interval (Efron 1979); None over nothing.

    `prompts` holds the shares of each prompt's texts; prompts are drawn anew with all of theirs, since texts that
    continue the same prompt are alike. The same draws serve everything with as many prompts, so that what differs
    between two rows is not their luck.
    """
    parts = np.array([sum(share.part for share in shares) for shares in prompts], float)
    wholes = np.array([sum(share.whole for share in shares) for shares in prompts], float)
    if wholes.sum() == 0:
        return None
    value, size = float(parts.sum() / wholes.sum()), len(parts)
    if size < 2:
        return Estimate(value, None, None)
    drawn = np.random.default_rng(SEED).integers(size, size=(resamples, size))
    sums = wholes[drawn].sum(1)
    possible = sums > 0
    ratios = parts[drawn].sum(1)[possible] / sums[possible]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, (tail, 1 - tail)).tolist()
    return Estimate(value, low, high)

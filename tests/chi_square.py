"""Pearson's chi-square test with the standard library alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist


def is_rejected(observed: Sequence[int], probabilities: Sequence[float], level: float = 1e-4) -> bool:
    """Whether counts are too far from (or, as suspicious, too near to) what the probabilities expect.

    Critical values by Wilson and Hilferty 1931: the cube root of chi-square over its freedom is nearly normal.
    """
    total = sum(observed)
    expected = [total * probability for probability in probabilities]
    assert min(expected) >= 5, "too few counts in a bin for the test to mean anything"
    statistic = sum((count - wanted) ** 2 / wanted for count, wanted in zip(observed, expected, strict=True))
    freedom = len(observed) - 1
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return abs(z) > NormalDist().inv_cdf(1 - level / 2)

"""What is certain of the tokens that a trace does not name: how much their probabilities weigh at another temperature.

A trace has the most probable tokens, and the entropy over all. So what the rest holds together (m), and its mean
surprise (h), are known, and none of it is more probable than the last that is named. At temperature T the rest weighs
the sum of p ** (1 / T), which is m * E[exp(g * u)] with g = 1 - 1 / T and the surprise u = -log p of a token drawn from
the rest. E[u] = h, and E[exp(u)] is the number of tokens over m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ROUNDING = 1e-11  # of sums over a vocabulary in float64, generously
MOST_TOKENS = 2**19  # in a vocabulary; the largest have half of it
LARGEST = 700.0  # whose exponential is a number


@dataclass(frozen=True, slots=True)
class Unseen:
    """The tokens that are not named: what they hold together, minus the sum of p * log p, and the highest log p."""

    mass: float
    surprise: float
    highest: float

    def count(self, temperature: float) -> tuple[float, float]:
        """The least and the most that they can weigh, as a number of tokens of the highest probability.

        The least is Jensen's inequality. The most has as many tokens as fit at the highest probability and all others
        at another one: with three moments known, that is the extreme (Krein and Nudelman 1977, on Chebyshev systems).
        """
        g, one = 1 - 1 / temperature, -self.highest / temperature
        mass = max(0.0, self.mass) + ROUNDING
        if self.mass <= 2 * ROUNDING:
            return 0.0, self._most(mass, -self.highest if g < 0 else math.log(MOST_TOKENS / mass), g, one)
        sure = self.mass - ROUNDING
        low, high = (self.surprise - ROUNDING) / mass, (self.surprise + ROUNDING) / sure
        least = sure * exp(g * (low if g > 0 else high) + one)
        return least, self._most(mass, high if g > 0 else low, g, one)

    def _most(self, mass: float, mean: float, g: float, one: float) -> float:
        """Of m * E[exp(g * u + one)], for the mean of u."""
        first, most = -self.highest, math.log(MOST_TOKENS / mass)
        mean = min(max(mean, first), max(first, most))
        if mean <= first or mean >= most:
            return mass * exp(g * mean + one)
        low, high = mean, LARGEST
        for _ in range(60):
            middle = (low + high) / 2
            share = (mean - first) / (middle - first)  # of those that are less probable
            is_below = (1 - share) * exp(first) + share * exp(middle) <= exp(most)
            low, high = (middle, high) if is_below else (low, middle)
        share = (mean - first) / (high - first)
        return mass * ((1 - share) * exp(g * first + one) + share * exp(g * high + one))


def exp(value: float) -> float:
    """Never infinite."""
    return math.exp(min(LARGEST, value))

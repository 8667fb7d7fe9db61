"""What is sure of a distribution of which only the most probable tokens are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokenglass.model.records.steps import Choice


@dataclass(frozen=True, slots=True)
class Bounds:
    """The probability of all tokens that are not listed, and bits of entropy that there are at least, both raw."""

    rest: float
    least_entropy: float

    @staticmethod
    def of(choice: Choice) -> Bounds | None:
        """None where no probability is known.

        A token that is not listed is no more probable than the least of the listed ones, of which the chosen one does
        not count: it may stand below the others. So the rest adds at least its own surprise at that probability.
        """
        probs = {each.token_id: math.exp(min(0.0, each.logprob)) for each in choice.candidates if each.logprob <= 0}
        if not probs:
            return None
        listed = sum(probs.values())
        rest = max(0.0, 1.0 - listed)
        others = [prob for token_id, prob in probs.items() if token_id != choice.token_id and prob > 0]
        highest = min([rest, *others])
        known = sum(-prob * math.log2(prob) for prob in probs.values() if prob > 0)
        return Bounds(rest, known + (rest * -math.log2(highest) if highest > 0 else 0.0))

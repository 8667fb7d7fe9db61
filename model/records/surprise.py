"""What is worth a look in a run: tokens that surprise, and those that another nearly stood in for."""

from __future__ import annotations

import math

from tokenglass.model.records.steps import Choice

SURPRISE = 4.0  # bits: less probable than one in sixteen
TIE = 0.8  # of the best one's probability


def bits(choice: Choice) -> float | None:
    """How much information the token is: minus the base-2 logarithm of its raw probability (Shannon 1948)."""
    return None if choice.logprob is None else -choice.logprob / math.log(2)


def closeness(choice: Choice) -> float | None:
    """The second-best raw probability over the best; None where fewer than two candidates are known."""
    logprobs = sorted((candidate.logprob for candidate in choice.candidates), reverse=True)
    if len(logprobs) < 2 or not math.isfinite(logprobs[0]):
        return None
    return math.exp(min(0.0, logprobs[1] - logprobs[0]))


def is_surprise(choice: Choice) -> bool:
    return (bits(choice) or 0.0) >= SURPRISE


def is_near_tie(choice: Choice) -> bool:
    return (closeness(choice) or 0.0) >= TIE

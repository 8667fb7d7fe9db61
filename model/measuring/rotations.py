"""A prompt that lists the answers, in every order that turning the list gives."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ParameterError


def rotations(prompt: str, answers: Sequence[str]) -> list[str]:
    """The prompt itself first. Raises ParameterError where an answer does not stand in it exactly once, as a word."""
    words = [answer.strip() for answer in answers]
    places = [place_of(prompt, word) for word in words]
    order = sorted(range(len(words)), key=lambda number: places[number])
    gaps, end = [], 0
    for number in order:
        gaps.append(prompt[end : places[number]])
        end = places[number] + len(words[number])
    if any(places[one] + len(words[one]) > places[other] for one, other in itertools.pairwise(order)):
        raise ParameterError("--rotate needs answers that stand beside each other in the prompt, not in each other")
    turned = []
    for turn in range(len(order)):
        listed = [words[order[(place + turn) % len(order)]] for place in range(len(order))]
        turned.append("".join(gap + word for gap, word in zip(gaps, listed, strict=True)) + prompt[end:])
    return turned


def place_of(prompt: str, word: str) -> int:
    places = [match.start() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", prompt)]
    if len(places) != 1 or not word:
        raise ParameterError(
            f"--rotate turns a list in the prompt; the answer {quote(word)} stands there {len(places)} times, not once"
        )
    return places[0]

"""Processors that move single tokens: by what the text already has, or by what was asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokenglass.model.config.fields import shown
from tokenglass.model.errors import ParameterError
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.provenance import Ints
from tokenglass.model.sampling.scores import Scores

if TYPE_CHECKING:
    from tokenglass.model.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class RepetitionPenalty(Processor):
    """Divide positive logits of tokens that occurred, multiply negative ones (Keskar et al. 2019, arXiv 1909.05858).

    The prompt counts, as in transformers.
    """

    penalty: float
    window: int = 0
    name: ClassVar[str] = "repetition-penalty"

    def __call__(self, scores: Scores) -> None:
        seen = past(scores, self.window)
        origin = scores.origin if math.isfinite(scores.origin) else 0.0
        old = scores.whole[seen] + origin  # its sign matters
        scores.edit(self.name, seen, np.where(old < 0, old * self.penalty, old / self.penalty) - origin)


@dataclass(frozen=True, slots=True)
class PresencePenalty(Processor):
    """Subtract a penalty once from new tokens that occurred (OpenAI's API reference, presence_penalty)."""

    penalty: float
    window: int = 0
    name: ClassVar[str] = "presence-penalty"

    def __call__(self, scores: Scores) -> None:
        seen = past(scores, self.window, new_only=True)
        scores.edit(self.name, seen, scores.whole[seen] - self.penalty)


@dataclass(frozen=True, slots=True)
class FrequencyPenalty(Processor):
    """Subtract a penalty for each time that a new token occurred (OpenAI's API reference, frequency_penalty)."""

    penalty: float
    window: int = 0
    name: ClassVar[str] = "frequency-penalty"

    def __call__(self, scores: Scores) -> None:
        seen = past(scores, self.window, new_only=True)
        times = np.bincount(seen)[seen]
        scores.edit(self.name, seen, scores.whole[seen] - self.penalty * times)


@dataclass(frozen=True, slots=True)
class LogitBias(Processor):
    """Add to the logits of some tokens. A token that is named several times gets the sum."""

    bias: tuple[tuple[tuple[int, ...], float], ...]
    sums: dict[int, float] = field(init=False, repr=False, compare=False)
    name: ClassVar[str] = "logit-bias"

    def __post_init__(self) -> None:
        sums: dict[int, float] = {}
        for token_ids, added in self.bias:
            for token_id in token_ids:
                sums[token_id] = sums.get(token_id, 0.0) + added
        object.__setattr__(self, "sums", sums)

    def __call__(self, scores: Scores) -> None:
        if max(self.sums) >= scores.size:
            raise ParameterError(f"logit_bias names token {max(self.sums)}; the vocabulary ends at {scores.size - 1}")
        named = np.array(list(self.sums), np.int64)
        scores.edit(self.name, named, scores.whole[named] + np.array(list(self.sums.values())))

    @property
    def settings(self) -> str:
        return ", ".join(f"{added:+} on {' '.join(map(str, token_ids))}" for token_ids, added in self.bias)


def past(scores: Scores, window: int, *, new_only: bool = False) -> Ints:
    """Ids of the last `window` tokens (0: all), one as often as it occurred; only ids that have a logit."""
    context = scores.context
    start = max(context.prompt_length if new_only else 0, context.position - window if window else 0)
    seen = scores.text[start:]
    return seen[seen < scores.size]


def single_token_forms(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the tokens that stand for exactly this text, alone or after a space.

    Raises ParameterError for a text that has no token of its own.
    """
    forms = (text.encode(), b" " + text.encode())
    found = tuple(token_id for token_id, piece in enumerate(tokenizer.pieces) if piece in forms)
    if not found:
        count = len(tokenizer.encode_bare(text))
        raise ParameterError(
            f"logit_bias: {shown(text)} is {count} tokens, and a bias is for one; give it for each, by id"
        )
    return found

"""Processors that move single tokens: by what the text already has, or by what was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ParameterError
from tokenglass.model.sampling import lazy_numpy as np
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.settings import number, texts

if TYPE_CHECKING:
    from tokenglass.model.sampling.provenance import Ints
    from tokenglass.model.sampling.scores import Scores
    from tokenglass.model.text.tokenizer import Tokenizer

Bias = tuple[tuple[tuple[int, ...], float], ...]  # token ids, and what is added to the logit of each
LARGEST = 1e3  # of a penalty or a bias


def penalty_window() -> int:
    """The setting that the penalties and DRY share."""
    return number(
        "penalty_window",
        0,
        least=0,
        expected="0 (all tokens) or more",
        help="Penalties look at the last n tokens; 0 is all.",
    )


def read_biases(items: Sequence[str], tokenizer: Tokenizer, rows: int) -> Bias:
    """Biases of TEXT=N or id:NUMBER=N; only ids below `rows` have a logit. Raises ParameterError."""
    return tuple(read_bias(item, tokenizer, rows) for item in items)


@dataclass(frozen=True, slots=True)
class RepetitionPenalty(Processor):
    """Divide positive logits of tokens that occurred, multiply negative ones (Keskar et al. 2019, arXiv 1909.05858).

    The prompt counts, as in transformers.
    """

    name: ClassVar[str] = "repetition-penalty"
    penalty: float = number(
        "repetition_penalty",
        1.0,
        least=1e-3,
        most=1e3,
        expected="between 0.001 and 1000; 1 is off, more discourages",
        help="Divide the logits of tokens already there, the prompt's and a template's too; 1 is off.",
        in_transformers=1.0,
    )
    window: int = penalty_window()

    def __call__(self, scores: Scores) -> None:
        seen = past(scores, self.window)
        origin = scores.origin if math.isfinite(scores.origin) else 0.0
        old = scores.whole[seen] + origin  # its sign matters
        scores.edit(self.name, seen, np.where(old < 0, old * self.penalty, old / self.penalty) - origin)


@dataclass(frozen=True, slots=True)
class PresencePenalty(Processor):
    """Subtract a penalty once from new tokens that occurred (OpenAI's API reference, presence_penalty)."""

    name: ClassVar[str] = "presence-penalty"
    penalty: float = number(
        "presence_penalty",
        0.0,
        least=-LARGEST,
        most=LARGEST,
        expected="between -1000 and 1000; 0 is off, more discourages",
        help="Take this from the logits of tokens already there; 0 is off.",
    )
    window: int = penalty_window()

    def __call__(self, scores: Scores) -> None:
        seen = past(scores, self.window, new_only=True)
        scores.edit(self.name, seen, scores.whole[seen] - self.penalty)


@dataclass(frozen=True, slots=True)
class FrequencyPenalty(Processor):
    """Subtract a penalty for each time that a new token occurred (OpenAI's API reference, frequency_penalty)."""

    name: ClassVar[str] = "frequency-penalty"
    penalty: float = number(
        "frequency_penalty",
        0.0,
        least=-LARGEST,
        most=LARGEST,
        expected="between -1000 and 1000; 0 is off, more discourages",
        help="Take this once for each time a token is there; 0 is off.",
    )
    window: int = penalty_window()

    def __call__(self, scores: Scores) -> None:
        seen = past(scores, self.window, new_only=True)
        times = np.bincount(seen)[seen]
        scores.edit(self.name, seen, scores.whole[seen] - self.penalty * times)


@dataclass(frozen=True, slots=True)
class LogitBias(Processor):
    """Add to the logits of some tokens. A token that is named several times gets the sum."""

    name: ClassVar[str] = "logit-bias"
    bias: Bias = texts(  # noqa: RUF009  (a field)
        "logit_bias",
        (),
        flags=("--logit-bias",),
        metavar="TOKEN=N",
        help="Add N to a token, by its text or its id (repeatable).",
        read=read_biases,
    )
    sums: dict[int, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sums: dict[int, float] = {}
        for token_ids, added in self.bias:
            if not abs(added) <= LARGEST:
                raise ParameterError(f"logit_bias is {added}; expected between -1000 and 1000")
            if not token_ids or min(token_ids) < 0:
                raise ParameterError(f"logit_bias names the token ids {list(token_ids)}; expected 0 or more, and one")
            for token_id in token_ids:
                sums[token_id] = sums.get(token_id, 0.0) + added
        object.__setattr__(self, "sums", sums)

    def __call__(self, scores: Scores) -> None:
        if max(self.sums) >= scores.size:
            raise ParameterError(f"logit_bias names token {max(self.sums)}; the vocabulary ends at {scores.size - 1}")
        named = np.array(list(self.sums), np.int64)
        scores.edit(self.name, named, scores.whole[named] + np.array(list(self.sums.values())))

    @property
    def description(self) -> str:
        return ", ".join(f"{added:+} on {' '.join(map(str, token_ids))}" for token_ids, added in self.bias)


def past(scores: Scores, window: int, *, new_only: bool = False) -> Ints:
    """Ids of the last `window` tokens (0: all), one as often as it occurred; only ids that have a logit."""
    context = scores.context
    start = max(context.prompt_length if new_only else 0, context.position - window if window else 0)
    seen = scores.text[start:]
    return seen[seen < scores.size]


MOST_ID = 2**62

PENALTIES: tuple[type[Processor], ...] = (LogitBias, RepetitionPenalty, PresencePenalty, FrequencyPenalty)
"""In their default order."""


def read_bias(item: str, tokenizer: Tokenizer, rows: int) -> tuple[tuple[int, ...], float]:
    """One of them."""
    name, bias = name_and_bias(item)
    if (token_id := id_in(name)) is not None:
        if token_id >= rows:
            raise ParameterError(f"--logit-bias {quote(item)}: the model's vocabulary ends at id {rows - 1:,}")
        return (token_id,), bias
    token_ids = tuple(token_id for token_id in single_token_forms(name, tokenizer) if token_id < rows)
    if not token_ids:
        raise ParameterError(
            f"--logit-bias {quote(item)}: the tokenizer has this token, but the model gives it no logit"
        )
    return token_ids, bias


def read_biases_by_id(items: Sequence[str]) -> Bias:
    """Biases of a model whose tokens and logits are not here. Raises ParameterError for one of a text."""
    biases = []
    for name, bias in map(name_and_bias, items):
        if (token_id := id_in(name)) is None:
            raise ParameterError(f"--logit-bias {quote(name)}: its tokens are not known here; give id:NUMBER=N")
        biases.append(((token_id,), bias))
    return tuple(biases)


def name_and_bias(item: str) -> tuple[str, float]:
    """Raises ParameterError."""
    name, equals, amount = item.rpartition("=")
    try:
        bias = float(amount)
    except ValueError:
        equals = ""
    if not equals or not name:
        raise ParameterError(
            f"--logit-bias {quote(item)}: expected TEXT=N or id:NUMBER=N, such as ' fox=2' or id:31=-5"
        )
    return name, bias


def id_in(name: str) -> int | None:
    """The number of a token that is named by it; one of more digits than Python reads is beyond all vocabularies."""
    if not (name.startswith("id:") and name[3:].isdecimal()):
        return None
    return int(name[3:]) if len(name) < 1000 else MOST_ID


def single_token_forms(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the tokens that stand for exactly this text, alone or after a space.

    Raises ParameterError for a text that has no token of its own.
    """
    forms = (text.encode(), b" " + text.encode())
    token_ids = tuple(token_id for token_id, piece in enumerate(tokenizer.pieces) if piece in forms)
    if not token_ids:
        count = len(tokenizer.encode_bare(text))
        raise ParameterError(
            f"logit_bias: {quote(text)} is {count} tokens, and a bias is for one; give it for each, by id"
        )
    return token_ids

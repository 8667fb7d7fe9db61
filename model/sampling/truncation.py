"""Processors that cut improbable (or too probable) tokens. They keep at least one.

Top-k, top-p, min-p and typical-p agree with the processors of the same name in Hugging Face transformers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokenglass.model.sampling.draw import XTC_STREAM, uniform
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.provenance import Ints
from tokenglass.model.sampling.raw import weighed
from tokenglass.model.sampling.scores import Scores

if TYPE_CHECKING:
    from tokenglass.model.text.tokenizer import Tokenizer


class Truncation(Processor):
    """Keeps some places of the head, and nothing outside it."""

    __slots__ = ()

    def __call__(self, scores: Scores) -> None:
        while (kept := self.kept(scores)) is None:
            scores.widen()
        scores.keep(self.name, kept)

    @abstractmethod
    def kept(self, scores: Scores) -> slice | Ints | None:
        """Places of the head to keep; None where an incomplete head does not decide it."""


@dataclass(frozen=True, slots=True)
class TopK(Truncation):
    """Keep the k most probable tokens, and those as probable as the k-th (Fan et al. 2018, arXiv 1805.04833)."""

    k: int
    name: ClassVar[str] = "top-k"

    def kept(self, scores: Scores) -> slice | None:
        values = scores.values
        if self.k > len(values):
            return slice(None) if scores.is_complete else None
        return slice(int((-values).searchsorted(-values[self.k - 1], side="right")))


@dataclass(frozen=True, slots=True)
class TopP(Truncation):
    """Keep the fewest most probable tokens that hold at least p together (Holtzman et al. 2019, arXiv 1904.09751)."""

    p: float
    name: ClassVar[str] = "top-p"

    def kept(self, scores: Scores) -> slice | None:
        ends = np.cumsum(scores.probs)
        if ends[-1] < self.p and not scores.is_complete:
            return None
        return slice(int(ends.searchsorted(self.p)) + 1)


@dataclass(frozen=True, slots=True)
class MinP(Processor):
    """Keep tokens at least p times as probable as the most probable one (Nguyen et al. 2024, arXiv 2407.01082)."""

    p: float
    name: ClassVar[str] = "min-p"

    def __call__(self, scores: Scores) -> None:
        scores.remove_below(self.name, scores.peak + math.log(self.p))


@dataclass(frozen=True, slots=True)
class TopNSigma(Processor):
    """Keep scores within n standard deviations of the highest (Tang et al. 2024, arXiv 2411.07641).

    The deviation is that of the population of all possible tokens' scores.
    """

    n: float
    name: ClassVar[str] = "top-n-sigma"

    def __call__(self, scores: Scores) -> None:
        with np.errstate(over="ignore"):  # an infinite deviation cuts nothing
            deviation = float(scores.possible.std())
        scores.remove_below(self.name, scores.peak - self.n * deviation)


@dataclass(frozen=True, slots=True)
class TypicalP(Truncation):
    """Keep the tokens whose surprise is nearest to the entropy, until they hold p (Meister et al. 2022,
    arXiv 2202.00666)."""

    p: float
    name: ClassVar[str] = "typical-p"

    def kept(self, scores: Scores) -> Ints | None:
        total = math.log(scores.mass)
        surprise = total - (scores.values - scores.peak)
        entropy = total - weighed(scores.possible - scores.peak)[1] / scores.mass
        distance = np.abs(surprise - entropy)
        order = np.argsort(distance, kind="stable")
        reached = np.cumsum(scores.probs[order])
        last = min(int((reached < self.p).sum()), len(order) - 1)
        widest = distance[order[last]]
        if not scores.is_complete and not (reached[last] >= self.p and widest < surprise[-1] - entropy):
            return None
        return np.flatnonzero(distance <= widest)


@dataclass(frozen=True, slots=True)
class XTC(Processor):
    """With some probability, cut all but the least probable of the tokens that reach the threshold.

    Nothing is cut where a newline or an end token would be: texts would never end. "Exclude top choices", by p-e-w:
    github.com/oobabooga/text-generation-webui/pull/6335. It has uniform numbers of its own.
    """

    probability: float
    threshold: float
    name: ClassVar[str] = "xtc"

    def __call__(self, scores: Scores) -> None:
        context = scores.context
        if uniform(context.seed, context.position, stream=XTC_STREAM, attempt=context.attempt) >= self.probability:
            return
        probs = scores.probs
        while probs[-1] >= self.threshold and not scores.is_complete:
            scores.widen()
            probs = scores.probs
        reaching = int((probs >= self.threshold).sum())
        if reaching < 2 or not scores.context.spared.isdisjoint(scores.token_ids[: reaching - 1].tolist()):
            return
        if scores.is_complete:
            scores.keep(self.name, slice(reaching - 1, None))
        else:
            scores.remove(self.name, scores.token_ids[: reaching - 1])


def spared(tokenizer: Tokenizer, eos_token_ids: Iterable[int]) -> frozenset[int]:
    """The tokens that XTC never cuts: those that end a text, and the newline's."""
    return frozenset((*eos_token_ids, *tokenizer.encode_bare("\n")[-1:]))

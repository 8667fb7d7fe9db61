"""Processors that cut improbable (or too probable) tokens. They keep at least one.

Top-k, top-p, min-p and typical-p agree with the processors of the same name in Hugging Face transformers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tokenglass.model.sampling import lazy_numpy as np
from tokenglass.model.sampling.draw import XTC_STREAM, uniform
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.settings import number

if TYPE_CHECKING:
    from tokenglass.model.sampling.provenance import Ints
    from tokenglass.model.sampling.scores import Scores
    from tokenglass.model.text.tokenizer import Tokenizer


class Truncation(Processor):
    __slots__ = ()
    only_for_draws: ClassVar[bool] = True


class HeadTruncation(Truncation):
    """Keeps some places of the head, and nothing outside it."""

    __slots__ = ()

    def __call__(self, scores: Scores) -> None:
        while (survivors := self.survivors(scores)) is None:
            scores.widen()
        scores.keep(self.name, survivors)

    @abstractmethod
    def survivors(self, scores: Scores) -> slice | Ints | None:
        """Places of the head to keep; None where an incomplete head does not decide it."""


@dataclass(frozen=True, slots=True)
class TopK(HeadTruncation):
    """Keep the k most probable tokens, and those as probable as the k-th (Fan et al. 2018, arXiv 1805.04833)."""

    name: ClassVar[str] = "top-k"
    k: int = number(
        "top_k",
        0,
        least=0,
        expected="0 (off) or more",
        help="Keep the k most probable tokens; 0 is off.",
        in_transformers=50,
    )

    def survivors(self, scores: Scores) -> slice | None:
        values = scores.values
        if self.k > len(values):
            return slice(None) if scores.is_complete else None
        return slice(int((-values).searchsorted(-values[self.k - 1], side="right")))


@dataclass(frozen=True, slots=True)
class TopP(HeadTruncation):
    """Keep the fewest most probable tokens that hold at least p together (Holtzman et al. 2019, arXiv 1904.09751)."""

    name: ClassVar[str] = "top-p"
    p: float = number(
        "top_p",
        0.95,
        least=0,
        most=1,
        expected="between 0 (the most probable token alone) and 1 (off)",
        off=1.0,
        help="Keep the best tokens that hold p together; 1 is off.",
        in_transformers=1.0,
    )

    def survivors(self, scores: Scores) -> slice | None:
        ends = np.cumsum(scores.probs)
        if ends[-1] < self.p and not scores.is_complete:
            return None
        return slice(int(ends.searchsorted(self.p)) + 1)


@dataclass(frozen=True, slots=True)
class MinP(Truncation):
    """Keep tokens at least p times as probable as the most probable one (Nguyen et al. 2024, arXiv 2407.01082)."""

    name: ClassVar[str] = "min-p"
    p: float = number(
        "min_p",
        0.0,
        least=0,
        most=1,
        expected="between 0 (off) and 1",
        help="Keep tokens p times as probable as the best; 0 is off.",
        in_transformers=0.0,
    )

    def __call__(self, scores: Scores) -> None:
        scores.remove_below(self.name, scores.peak + math.log(self.p))


@dataclass(frozen=True, slots=True)
class TopNSigma(Truncation):
    """Keep scores within n standard deviations of the highest (Tang et al. 2024, arXiv 2411.07641).

    The deviation is that of the population of all possible tokens' scores.
    """

    name: ClassVar[str] = "top-n-sigma"
    n: float = number(
        "top_n_sigma",
        0.0,
        least=0,
        expected="0 (off) or more",
        help="Keep logits within n deviations of the best; 0 is off.",
    )

    def __call__(self, scores: Scores) -> None:
        with np.errstate(over="ignore"):  # an infinite deviation cuts nothing
            deviation = float(scores.possible.std())
        scores.remove_below(self.name, scores.peak - self.n * deviation)


@dataclass(frozen=True, slots=True)
class TypicalP(HeadTruncation):
    """Keep the tokens whose surprise is nearest to the entropy, until they hold p (Meister et al. 2022,
    arXiv 2202.00666)."""

    name: ClassVar[str] = "typical-p"
    p: float = number(
        "typical_p",
        1.0,
        least=0,
        most=1,
        expected="between 0 (the most typical token alone) and 1 (off)",
        help="Keep the tokens nearest to the expected surprise; 1 is off.",
        in_transformers=1.0,
    )

    def survivors(self, scores: Scores) -> Ints | None:
        total = math.log(scores.mass)
        surprise = total - (scores.values - scores.peak)
        entropy = scores.entropy
        distance = np.abs(surprise - entropy)
        order = np.argsort(distance, kind="stable")
        reached = np.cumsum(scores.probs[order])
        last = min(int((reached < self.p).sum()), len(order) - 1)
        widest = distance[order[last]]
        if not scores.is_complete and not (reached[last] >= self.p and widest < surprise[-1] - entropy):
            return None
        return np.flatnonzero(distance <= widest)


@dataclass(frozen=True, slots=True)
class XTC(Truncation):
    """With some probability, cut all but the least probable of the tokens that reach the threshold.

    Nothing is cut where a newline or an end token would be: texts would never end. "Exclude top choices", by p-e-w:
    github.com/oobabooga/text-generation-webui/pull/6335. It has uniform numbers of its own.
    """

    name: ClassVar[str] = "xtc"
    probability: float = number(
        "xtc_probability",
        0.0,
        least=0,
        most=1,
        expected="between 0 (off) and 1",
        help="How often the top choices are left out, never a newline or an end token; 0 is off.",
    )
    threshold: float = number(
        "xtc_threshold",
        0.1,
        least=0,
        most=1,
        expected="between 0 and 1 (more than 0.5 never cuts)",
        help="Top choices are those above this probability.",
    )

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


def ids_spared_by_xtc(tokenizer: Tokenizer, eos_token_ids: Iterable[int]) -> frozenset[int]:
    """The tokens that XTC never cuts: those that end a text, and the newline's."""
    return frozenset((*eos_token_ids, *tokenizer.encode_bare("\n")[-1:]))


TRUNCATIONS: tuple[type[Processor], ...] = (TopNSigma, TopK, TopP, MinP, TypicalP, XTC)
"""In their default order."""

"""The model's own distribution at one position, before any mask or processor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tokenglass.model.errors import EngineError
from tokenglass.model.sampling.context import Mask
from tokenglass.model.sampling.head import HEAD, Head
from tokenglass.model.sampling.provenance import Floats, Ints, Logits

if TYPE_CHECKING:
    from tokenglass.model.sampling.processor import Processor

ALL = slice(None)
PART = 8192
BLOCK = 2**16  # logits of several rows that stay in a processor's second cache
LEAST = -1e3  # its exponential is 0


@dataclass(frozen=True, slots=True)
class Raw:
    """Logits (vocab,) at temperature 1 and what sums over them say; the sums are in float64."""

    logits: Logits
    peak: float  # the highest logit
    mass: float  # sum of exp(logit - peak)
    weighted: float  # sum of (logit - peak) * exp(logit - peak)
    head: Head  # the most probable tokens, and how far each lies from the peak

    @staticmethod
    def of(logits: Logits, count: int = HEAD) -> Raw:
        """With at least `count` tokens in the head. Raises EngineError for NaN, infinity, or nothing possible."""
        peak = float(logits.max())
        if not math.isfinite(peak):
            raise not_numbers()
        below = below_peak(logits, peak)
        return Raw(logits, peak, *exponential_sums(below), Head.of(below, count))

    @property
    def highest(self) -> float:
        """The probability of the most probable token."""
        return 1 / self.mass

    @property
    def entropy(self) -> float:
        """Over the whole vocabulary, in bits."""
        return bits_of_entropy(self.mass, self.weighted)

    def mass_at(self, temperature: float) -> float:
        """Sum of exp((logit - peak) / temperature)."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.below() / temperature).sum())

    def below(self) -> Floats:
        """How far each logit lies from the highest (vocab,), in memory of its own."""
        return below_peak(self.logits, self.peak)

    def logprobs(self, token_ids: Ints | slice = ALL) -> Floats:
        """Log-softmax of these tokens' logits, or of all."""
        return self.logits[token_ids].astype(np.float64) - (self.peak + math.log(self.mass))

    def rank(self, token_id: int) -> int:
        """1 for the most probable token; of equally probable ones the lower id comes first."""
        own = self.logits[token_id]
        return 1 + int((self.logits > own).sum()) + int((self.logits[:token_id] == own).sum())


@dataclass(frozen=True, slots=True)
class RowNumbers:
    """What `Raw` says of one token in each of several rows of logits; entropies are in bits."""

    logprobs: Floats
    ranks: Ints
    entropies: Floats

    @staticmethod
    def of_sums(below: Floats, mass: Floats, weighted: Floats, ranks: Ints) -> RowNumbers:
        """From how far each token lies from its row's peak, and from what `Raw` calls mass and weighted."""
        return RowNumbers(below - np.log(mass), ranks, (np.log(mass) - weighted / mass) / math.log(2))


class TokenDraw(NamedTuple):
    """The token that a chain takes, and the most probable ones beside it, by raw probability."""

    entropy: float  # raw, in bits
    place: int  # of the token among the others
    rank: int  # raw
    tokens: list[tuple[int, int, float, float]]  # id, place of what removed it, raw logprob, final probability
    removers: Sequence[str | None]


# from logits, or what was measured of them, a draw, and masks
Drawer = Callable[[Raw | Logits, float, Sequence[Mask]], TokenDraw | None]


class DrawRequest(NamedTuple):
    """What a drawer is asked."""

    drawer: Drawer
    logits: Logits
    draw: float
    masks: Sequence[Mask] = ()


class Measure:
    """The way from logits (vocab,) to what a sampler asks of them; an engine may have a faster one."""

    def __call__(self, logits: Logits, count: int) -> Raw:
        """Raises what `Raw.of` raises."""
        return Raw.of(logits, count)

    def drawer(self, chain: Sequence[Processor], top: int, *, is_greedy: bool) -> Drawer | None:  # noqa: ARG002
        """What draws with this chain in one step, the `top` most probable tokens recorded, where there is such a thing;
        it gives None where it cannot tell."""
        return None


def measure_rows(logits: Logits, token_ids: Ints) -> RowNumbers:
    """One token's numbers in each row (rows, vocab), a few rows at once: many positions cost no step of Python each.

    Raises EngineError as `Raw.of` does.
    """
    rows, size = logits.shape
    own = np.take_along_axis(logits, token_ids[:, None], 1)
    peaks = logits.max(1, keepdims=True).astype(np.float64)
    if not np.isfinite(peaks).all():
        raise not_numbers()
    mass, weighted, ranks = np.empty(rows), np.empty(rows), np.empty(rows, np.int64)
    at_once = max(1, BLOCK // size)
    for start in range(0, rows, at_once):
        here = slice(start, start + at_once)
        part = logits[here]
        below = part - peaks[here]
        weights = np.exp(below)
        mass[here] = weights.sum(1)
        weighted[here] = (weights * np.maximum(below, LEAST)).sum(1)
        ranks[here] = 1 + np.count_nonzero(part > own[here], axis=1)
        equal = part == own[here]
        for row in (np.count_nonzero(equal, axis=1) > 1).nonzero()[0]:
            ranks[start + row] += int(equal[row, : token_ids[start + row]].sum())
    return RowNumbers.of_sums((own - peaks)[:, 0], mass, weighted, ranks)


def bits_of_entropy(mass: float, weighted: float) -> float:
    """From what `Raw` calls mass and weighted (Shannon 1948)."""
    return (math.log(mass) - weighted / mass) / math.log(2)


def measure_later(logits: Sequence[Logits], _: int) -> list[Raw | Logits]:
    """The way of an engine for which several positions at once are no faster: each is measured when it is needed."""
    return list(logits)


def below_peak(logits: Logits, peak: float) -> Floats:
    below = logits.astype(np.float64)
    below -= peak
    return below


def not_numbers() -> EngineError:
    return EngineError(
        "the model's logits are not numbers (NaN or infinite); the weights may be damaged, "
        "or the dtype too narrow: try --dtype float32"
    )


def exponential_sums(below: Floats) -> tuple[float, float]:
    """Sums of exp(x) and of x * exp(x), where minus infinity adds nothing.

    Part by part, so that the exponentials stay in the processor's first cache and BLAS starts no threads of its own.
    """
    mass = weighted = 0.0
    with np.errstate(invalid="ignore"):  # impossible tokens: 0 times minus infinity
        for start in range(0, len(below), PART):
            part = below[start : start + PART]
            weights = np.exp(part)
            mass += float(weights.sum())
            product = float(weights.dot(part))
            weighted += float(weights.dot(np.maximum(part, LEAST))) if math.isnan(product) else product
    return mass, weighted


def draw_one_by_one(requests: Sequence[DrawRequest]) -> list[TokenDraw | None]:
    """The way of an engine for which several draws at once are no faster."""
    return [each.drawer(each.logits, each.draw, each.masks) for each in requests]


def as_array(logits: Any) -> Logits:
    """Logits on the CPU, at least float32; a torch tensor of any dtype and device, or an array.

    What is computed of them is left to numpy: torch's threads would spin on the processors that the kernels need.
    """
    if not isinstance(logits, np.ndarray) and hasattr(logits, "detach"):
        logits = (logits.float() if logits.dtype.itemsize < 4 else logits).numpy(force=True)
    return np.asanyarray(logits)


MeasureRows = Callable[[Logits, Ints], RowNumbers]  # what `measure_rows` does, likewise
MeasureEach = Callable[[Sequence[Logits], int], list[Raw | Logits]]  # what `Measure` does, for several at once
DrawEach = Callable[[Sequence[DrawRequest]], list[TokenDraw | None]]  # what each drawer does, likewise

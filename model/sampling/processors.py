"""Logits processors: each takes scores (..., vocab) in log space and gives scores, cut tokens at minus infinity.

They agree with the processors of the same name in Hugging Face transformers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from model.sampling.parameters import SamplingParameters

PREFIX = 256  # the most probable tokens, looked at before a full sort


class Processor(Protocol):
    @property
    def name(self) -> str:
        """What a candidate's `removed_by` says."""

    def __call__(self, scores: Tensor) -> Tensor:
        """New scores (..., vocab)."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """Divide by the temperature: below 1 sharpens, above 1 flattens. Shifted first, so that nothing overflows."""

    temperature: float
    name: ClassVar[str] = "temperature"

    def __call__(self, scores: Tensor) -> Tensor:
        return (scores - scores.amax(-1, keepdim=True)) / self.temperature


@dataclass(frozen=True, slots=True)
class TopK:
    """Keep the k most probable tokens, and those as probable as the k-th (Fan et al. 2018, arXiv 1805.04833)."""

    k: int
    name: ClassVar[str] = "top-k"

    def __call__(self, scores: Tensor) -> Tensor:
        if self.k >= scores.shape[-1]:
            return scores
        kth = scores.topk(self.k).values[..., -1:]
        return scores.masked_fill(scores < kth, -math.inf)


@dataclass(frozen=True, slots=True)
class TopP:
    """Keep the fewest most probable tokens that hold at least p together (Holtzman et al. 2019, arXiv 1904.09751)."""

    p: float
    name: ClassVar[str] = "top-p"

    def __call__(self, scores: Tensor) -> Tensor:
        total = scores.logsumexp(-1, keepdim=True)
        size = scores.shape[-1]
        values, ids = scores.topk(min(PREFIX, size))
        before = exclusive_mass(values, total)
        if values.shape[-1] < size and bool((before[..., -1] < self.p).any()):
            values, ids = scores.sort(stable=True, dim=-1, descending=True)
            before = exclusive_mass(values, total)
        kept = torch.full_like(scores, -math.inf)
        return kept.scatter(-1, ids, values.masked_fill(before >= self.p, -math.inf))


@dataclass(frozen=True, slots=True)
class MinP:
    """Keep tokens at least p times as probable as the most probable one (Nguyen et al. 2024, arXiv 2407.01082)."""

    p: float
    name: ClassVar[str] = "min-p"

    def __call__(self, scores: Tensor) -> Tensor:
        least = scores.amax(-1, keepdim=True) + math.log(self.p)
        return scores.masked_fill(scores < least, -math.inf)


def exclusive_mass(values: Tensor, total: Tensor) -> Tensor:
    """Probability held by the tokens before each one, for log values sorted downwards."""
    probs = (values - total).exp()
    return probs.cumsum(-1) - probs


def default_chain(parameters: SamplingParameters) -> tuple[Processor, ...]:
    """The processors that are on, in the order temperature, top-k, top-p, min-p. Greedy decoding needs none."""
    if parameters.is_greedy:
        return ()
    chain: list[Processor] = [Temperature(parameters.temperature)]
    if parameters.top_k:
        chain.append(TopK(parameters.top_k))
    if parameters.top_p < 1:
        chain.append(TopP(parameters.top_p))
    if parameters.min_p:
        chain.append(MinP(parameters.min_p))
    return tuple(chain)

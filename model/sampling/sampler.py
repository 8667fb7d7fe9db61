"""From logits to a Choice: raw distribution, processors with provenance, the draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import EngineError
from model.sampling.draw import uniform
from model.sampling.parameters import SamplingParameters
from model.sampling.processors import PREFIX, Processor, default_chain
from model.steps import Candidate, Choice

GREEDY = "temperature"  # temperature 0 leaves the whole mass to one token


@dataclass(frozen=True, slots=True)
class Sampler:
    """Picks one token per position; a pure function of the logits, the seed and the position."""

    parameters: SamplingParameters
    seed: int
    piece: Callable[[int], bytes]
    top: int = 5

    @property
    def chain(self) -> tuple[Processor, ...]:
        return default_chain(self.parameters)

    def choose(self, logits: Tensor, position: int, attempt: int = 0) -> Choice:
        """The token for `position` from its logits (vocab,). Raises EngineError where they hold no distribution."""
        raw = raw_logprobs(logits)
        top_ids = most_probable(raw, self.top)
        removed: dict[int, str] = {}
        if self.parameters.is_greedy:
            token_id = int((raw == raw.max()).nonzero()[0])
            draw = None
            final = torch.zeros_like(raw)
            final[token_id] = 1.0
            removed = {other: GREEDY for other in top_ids.tolist() if other != token_id}
        else:
            scores = raw
            for processor in self.chain:
                scores = processor(scores)
                for gone in top_ids[scores[top_ids].isneginf()].tolist():
                    removed.setdefault(gone, processor.name)
            draw = uniform(self.seed, position, attempt=attempt)
            token_id = inverse_cdf(scores, draw)
            final = (scores - scores.logsumexp(-1)).exp()
        shown = top_ids.tolist()
        if token_id not in shown:
            shown.append(token_id)
        return Choice(
            position=position,
            token_id=token_id,
            piece=self.piece(token_id),
            logprob=float(raw[token_id]),
            prob=float(final[token_id]),
            rank=rank(raw, token_id),
            entropy=entropy_bits(raw),
            draw=draw,
            candidates=tuple(
                Candidate(i, self.piece(i), float(raw[i]), float(final[i]), removed.get(i)) for i in shown
            ),
        )


def most_probable(raw: Tensor, count: int) -> Tensor:
    """The ids of the `count` most probable tokens, ties by token id."""
    if count < 1:
        return torch.empty(0, dtype=torch.long)
    floor = raw.topk(min(count, len(raw))).values[-1]
    ids = (raw >= floor).nonzero()[:, 0]
    return ids[raw[ids].sort(stable=True, descending=True).indices][:count]


def raw_logprobs(logits: Tensor) -> Tensor:
    """Log-softmax in float64 at temperature 1. Raises EngineError for NaN, infinity, or nothing possible."""
    raw = logits.double().log_softmax(-1)
    if bool(raw.isnan().any()):
        raise EngineError(
            "the model's logits are not numbers (NaN or infinite); the weights may be damaged, "
            "or the dtype too narrow: try --dtype float32"
        )
    return raw


def entropy_bits(raw: Tensor) -> float:
    """Entropy of the raw distribution over the whole vocabulary, in bits (Shannon 1948)."""
    return float(torch.special.entr(raw.exp()).sum()) / math.log(2)


def rank(raw: Tensor, token_id: int) -> int:
    """1 for the most probable token; of equally probable ones the lower id comes first."""
    own = raw[token_id]
    return 1 + int((raw > own).sum()) + int((raw[:token_id] == own).sum())


def inverse_cdf(scores: Tensor, draw: float) -> int:
    """The token whose stretch of the cumulative distribution holds `draw`.

    Stretches lie in order of final probability, ties by token id, and are summed in float64. A prefix of that order
    is tried before a full sort; it is cut where a tie could continue beyond it.
    """
    scores = scores.double()
    total = scores.logsumexp(-1)
    size = len(scores)
    if size > PREFIX:
        floor = scores.topk(PREFIX).values[-1]
        certain = (scores > floor).nonzero()[:, 0]  # in order of token id, at most PREFIX - 1
        found = find_stretch(scores[certain], total, draw)
        if found is not None:
            return int(certain[found])
    found = find_stretch(scores, total, draw)
    # Rounding may leave the sum just below 1: the last possible token owns what is missing.
    return found if found is not None else int(last_possible(scores))


def find_stretch(scores: Tensor, total: Tensor, draw: float) -> int | None:
    """Index into `scores` of the stretch that holds `draw`, or None when it lies beyond them all."""
    values, order = scores.sort(stable=True, descending=True)
    ends = (values - total).exp().cumsum(-1)
    index = int(torch.searchsorted(ends, draw, right=True))
    return int(order[index]) if index < len(order) and values[index] > -math.inf else None


def last_possible(scores: Tensor) -> Tensor:
    values, order = scores.sort(stable=True, descending=True)
    return order[int((values > -math.inf).sum()) - 1]

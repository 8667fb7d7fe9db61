"""Where a mode that promises the autoregressive text left it, and how near to a tie that was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.sequence import Sequence as Text
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.measuring.comparison.texts import shared_length
from tokenglass.model.sampling.draw import uniform
from tokenglass.model.sampling.provenance import Floats
from tokenglass.model.sampling.sampler import Sampler


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first place where two texts differ.

    `margin` is the difference of the two best logprobs (greedy), or the distance of the draw from the nearer edge of
    the autoregressive token's interval (sampled); None where one text only ends before the other.
    """

    index: int  # among the new tokens
    expected: int | None  # the autoregressive token id
    found: int | None
    margin: float | None


def divergence(
    loaded: LoadedModel, request: Request, expected: Sequence[int], written: Sequence[int]
) -> Divergence | None:
    """None where the token ids are the same."""
    if tuple(expected) == tuple(written):
        return None
    index = shared_length(expected, written)
    here, there = (ids[index] if index < len(ids) else None for ids in (expected, written))
    margin = None if here is None or there is None else margin_of(loaded, request, expected[:index], here)
    return Divergence(index, here, there, margin)


def margin_of(loaded: LoadedModel, request: Request, written: Sequence[int], token_id: int) -> float:
    """How far the choice of `token_id` behind the `written` tokens was from another one; all positions recomputed."""
    ids = [*request.prompt_ids, *written]
    planned = request.planned_length(loaded.engine.limit)
    logits = loaded.engine.forward([ids], None, planned_length=planned)[0][-1]
    context = Text(loaded.tokenizer, request, loaded.engine.limit).context(ahead=written)
    greedy = request.sampling.is_greedy
    sampling = request.sampling.replace(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) if greedy else request.sampling
    final = Sampler(sampling, loaded.tokenizer.piece).distribution(logits, context).final
    return top_two(final) if greedy else to_edge(final, token_id, uniform(request.seed, len(ids)))


def top_two(probs: Floats) -> float:
    """Logprob of the most probable token (natural logarithm) minus that of the second."""
    second, first = np.partition(probs, -2)[-2:]
    return math.log(first / second) if second > 0 else math.inf


def to_edge(probs: Floats, token_id: int, draw: float) -> float:
    """Distance of a draw from the nearer inner edge of a token's stretch of [0, 1), outside of it a negative one.

    Stretches lie in order of probability, ties by token id, as the sampler lays them.
    """
    order = np.lexsort((np.arange(len(probs)), -probs))
    ends = probs[order].cumsum()
    place = int((order == token_id).argmax())
    below = math.inf if place == 0 else draw - ends[place - 1]
    above = math.inf if ends[place] >= ends[-1] else ends[place] - draw
    return float(min(below, above))

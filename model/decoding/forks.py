"""Where a text nearly went another way, and how it would have gone on: near-ties, and a greedy look-ahead from each."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from tokenglass.model.decoding.autoregressive import next_inputs
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.sequence import Sequence as Text
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.records.steps import Candidate, Choice

LENGTH = 12  # tokens looked ahead
TIES_PER_FORK = 2  # of so many near-ties, those that change most are the forks


@dataclass(frozen=True, slots=True)
class NearTie:
    """A choice, its strongest other candidate, and how close they were: the smaller probability over the larger."""

    choice: Choice
    other: Candidate
    closeness: float


@dataclass(frozen=True, slots=True)
class Fork:
    """A near-tie and both ways on from it, each with its first token; `difference` is the share of tokens that are not
    in the other one, in order (1 minus the ratio of difflib), as far as the text went."""

    tie: NearTie
    taken: tuple[int, ...]
    other: tuple[int, ...]
    difference: float

    @property
    def consequence(self) -> float:
        """How near it was, times how much it would have changed."""
        return self.tie.closeness * self.difference


def near_ties(choices: Sequence[Choice], count: int, *, greedy: bool) -> list[NearTie]:
    """The `count` closest, by final probability; by the raw one of a greedy text, whose final one is all or nothing."""
    ties = (tie for choice in choices for tie in near_tie(choice, greedy=greedy))
    closest = sorted(ties, key=lambda tie: (-tie.closeness, tie.choice.position))[:count]
    return sorted(closest, key=lambda tie: tie.choice.position)


def near_tie(choice: Choice, *, greedy: bool) -> Iterator[NearTie]:
    """At most one. None where a token was forced, or nothing else could be drawn."""
    weights = {each.token_id: weight_of(each, greedy=greedy) for each in choice.candidates}
    taken = weights.get(choice.token_id, 0.0) if choice.token_id is not None else 0.0
    others = [each for each in choice.candidates if each.token_id != choice.token_id and weights[each.token_id] > 0]
    if choice.status == "forced" or not taken or not others:
        return
    other = max(others, key=lambda each: weights[each.token_id])
    weight = weights[other.token_id]
    yield NearTie(choice, other, min(taken, weight) / max(taken, weight))


def weight_of(candidate: Candidate, *, greedy: bool) -> float:
    return math.exp(min(0.0, candidate.logprob)) if greedy else candidate.prob or 0.0


def find_forks(job: Job, cache: KVCache, choices: Sequence[Choice], count: int, length: int = LENGTH) -> list[Fork]:
    """The `count` most consequential near-ties of a text whose cache is row 0, in the text's order.

    The row is as it was afterwards, as far as its layers can go back. Raises EngineError, PromptError.
    """
    greedy = job.request.sampling.is_greedy
    ties = near_ties(choices, TIES_PER_FORK * count, greedy=greedy)
    token_ids = [choice.token_id for choice in choices if choice.token_id is not None]
    starts = {choice.position: place for place, choice in enumerate(choices)}
    ways = look_ahead(
        job, cache, token_ids, [(starts[tie.choice.position], tie.other.token_id) for tie in ties], length
    )
    forks = []
    for tie, way in zip(ties, ways, strict=True):
        start = starts[tie.choice.position]
        taken = tuple(token_ids[start : start + len(way)])
        different = 1.0 - SequenceMatcher(None, taken, way[: len(taken)], autojunk=False).ratio()
        forks.append(Fork(tie, taken, way, different))
    most = sorted(forks, key=lambda fork: (-fork.consequence, fork.tie.choice.position))[:count]
    return sorted(most, key=lambda fork: fork.tie.choice.position)


def look_ahead(
    job: Job, cache: KVCache, token_ids: Sequence[int], branches: Collection[tuple[int, int]], length: int
) -> list[tuple[int, ...]]:
    """The other token of each branch (behind so many new ones) and up to `length` that the most probable ones follow.

    All branches are one batch, and go on from copies of row 0.
    """
    texts = [branch(job, [*token_ids[:start], other], length) for start, other in branches]
    held = len(cache.rows)
    cache.select([*range(held), *[0] * len(texts)])
    try:
        while any(text.reason is None for text in texts):
            inputs: list[list[int]] = [[] for _ in range(held)]
            for row, text in enumerate(texts, start=held):
                is_open = text.reason is None
                inputs.append(next_inputs(text.token_ids, cache, job.request.prefill_chunk, row) if is_open else [])
            logits = job.engine.forward(inputs, cache)
            for row, text in enumerate(texts, start=held):
                if text.reason is None and cache.lengths[row] == len(text.token_ids):
                    text.decide(logits[row][-1])
    finally:
        cache.select([*range(held)])
    prompt_length = len(job.request.prompt_ids)
    return [tuple(text.token_ids[prompt_length + start :]) for text, (start, _) in zip(texts, branches, strict=True)]


def branch(job: Job, new_ids: Sequence[int], length: int) -> Text:
    """The text up to these new tokens, to be continued greedily."""
    request = replace(
        job.request,
        sampling=job.request.sampling.replace(temperature=0.0),
        max_new_tokens=len(new_ids) + length,
        min_new_tokens=min(job.request.min_new_tokens, len(new_ids) + length),
        top=0,
    )
    text = replace(job, request=request).new_sequence()
    for token_id in new_ids:
        if text.reason is None:
            text.append(token_id)
            text.pop_rewind()
    return text

"""From logits to a Choice: raw distribution, masks, processors with provenance, the draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np

from tokenglass.model.records.steps import Candidate, Choice, Status
from tokenglass.model.sampling.chain import GREEDY, apply_chain, build_chain
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.draw import uniform
from tokenglass.model.sampling.head import HEAD, in_order
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.provenance import Change, Floats, Ints, Logits
from tokenglass.model.sampling.raw import DrawEach, DrawRequest, Measure, Raw, TokenDraw, as_array
from tokenglass.model.sampling.routed_logits import experts_of
from tokenglass.model.sampling.scores import Scores

Keep = Callable[[Choice, Raw, Context], None]


@dataclass(frozen=True, slots=True)
class Distribution:
    """One position's distribution over the whole vocabulary."""

    raw: Floats  # (vocab,) log-softmax of the logits
    final: Floats  # (vocab,) probabilities after masks and processors


class Sampler:
    """Picks one token per position; a pure function of the logits and the context."""

    __slots__ = ("chain", "drawer", "is_greedy", "keep", "measure", "piece", "top")

    def __init__(
        self,
        parameters: SamplingParameters,
        piece: Callable[[int], bytes],
        top: int = 5,
        measure: Measure | None = None,
        keep: Keep | None = None,
    ):
        """`piece` gives the bytes of a token id; `top` candidates are recorded per choice; `keep` is called with what
        each choice was made of."""
        self.measure = measure or Measure()
        self.keep = keep
        self.is_greedy = parameters.is_greedy
        self.piece = piece
        self.top = top
        self.chain = build_chain(parameters)
        self.drawer = self.measure.drawer(self.chain, top, is_greedy=self.is_greedy)

    def choose(self, logits: Any, context: Context) -> Choice:
        """The next token from its logits (vocab,), a tensor or an array, or from what `raw` told of them.

        Raises EngineError where they hold no distribution, NothingPossible where masks and processors leave nothing,
        ParameterError where a processor lacks what it needs.
        """
        if self.keep is None:
            return self._choose(logits if isinstance(logits, Raw) else as_array(logits), context)
        raw = logits if isinstance(logits, Raw) else self.raw(logits)
        choice = self._choose(raw, context)
        self.keep(choice, raw, context)
        return choice

    def _choose(self, logits: Raw | Logits, context: Context) -> Choice:
        draw = self.draw(context)
        token = None if self.drawer is None else self.drawer(logits, draw or 0.0, context.masks)
        if token is None:
            return self._choose_by_parts(logits, context, draw)
        return self.record_draw(token, logits, context, draw)

    @property
    def draws_at_once(self) -> bool:
        """Whether it chooses in one step, by the logits and the masks alone."""
        return self.drawer is not None and self.keep is None

    def draw(self, context: Context) -> float | None:
        """The uniform number that the next token is drawn with; None where it is the most probable one."""
        return None if self.is_greedy else uniform(context.seed, context.position, attempt=context.attempt)

    def record_draw(self, token: TokenDraw, logits: Raw | Logits, context: Context, draw: float | None) -> Choice:
        """The choice of a token that the drawer took."""
        piece, removers = self.piece, token.removers
        candidates = tuple(
            [
                Candidate(token_id, piece(token_id), logprob, prob, removers[cut])
                for token_id, cut, logprob, prob in token.tokens
            ]
        )
        candidate = candidates[token.place]
        chosen = candidate.token_id, candidate.piece, candidate.logprob, candidate.prob
        experts = experts_of(logits.logits if isinstance(logits, Raw) else logits)
        # By their places: by their names it takes twice as long.
        return Choice(context.position, *chosen, token.rank, token.entropy, draw, candidates, "sampled", experts)

    def _choose_by_parts(self, logits: Raw | Logits, context: Context, draw: float | None) -> Choice:
        """By a chain that applies one mask or processor after the other. Raises what `choose` raises."""
        raw = logits if isinstance(logits, Raw) else self.raw(logits)
        scores = self.scores(raw, context)
        token_id = int(scores.token_ids[0]) if draw is None else draw_token(scores, draw)
        return self.record(raw, scores, token_id, draw)

    def record(
        self,
        raw: Raw,
        scores: Scores,
        token_id: int,
        draw: float | None = None,
        status: Status = "sampled",
        *,
        has_probs: bool = True,
    ) -> Choice:
        """The choice of a given token, whatever became of its score, with the candidates beside it.

        Without probabilities where nothing is drawn, as in a search.
        """
        shown = scores.watched if len(scores.watched) <= self.top else scores.watched[: self.top]
        is_constrained = any(mask.allowed is not None for mask in scores.context.masks)
        if is_constrained:
            shown = np.concatenate((shown, self._possible_beside(raw, scores, shown)))
        token_ids = shown.tolist()
        if token_id not in token_ids:
            token_ids.append(token_id)
            shown = np.array(token_ids)
        candidates = self._candidates(raw, scores, shown, has_probs=has_probs)
        chosen = candidates[token_ids.index(token_id)]
        if is_constrained:
            candidates = tuple([replace(candidate, rank=raw.rank(candidate.token_id)) for candidate in candidates])
        place = (raw.head.token_ids == token_id).nonzero()[0]
        return Choice(
            position=scores.context.position,
            token_id=token_id,
            piece=chosen.piece,
            logprob=chosen.logprob,
            prob=chosen.prob,
            rank=int(place[0]) + 1 if len(place) else raw.rank(token_id),
            entropy=raw.entropy,
            draw=draw,
            candidates=candidates,
            status=status,
            experts=experts_of(raw.logits),
        )

    def distribution(self, logits: Any, context: Context) -> Distribution:
        """Raw and final distribution over the whole vocabulary. Raises what `choose` raises."""
        raw = logits if isinstance(logits, Raw) else self.raw(logits)
        return Distribution(raw.logprobs(), self.final(self.scores(raw, context)))

    def final(self, scores: Scores) -> Floats:
        """The probabilities (vocab,) that a token is drawn with."""
        final = np.zeros(scores.size)
        if self.is_greedy:
            final[scores.token_ids[0]] = 1.0
        elif scores.is_complete:
            final[scores.token_ids] = scores.probs
        else:
            final = np.exp(scores.whole - scores.peak) / scores.mass
        return final

    def raw(self, logits: Any) -> Raw:
        """The model's own distribution. Raises EngineError where there is none."""
        return self.measure(as_array(logits), max(HEAD, self.top))

    def scores(self, raw: Raw, context: Context) -> Scores:
        """What masks and processors leave. Raises what `choose` raises."""
        scores = Scores(raw, context, self.top)
        apply_chain(self.chain, scores)
        return scores

    def _possible_beside(self, raw: Raw, scores: Scores, shown: Ints) -> Ints:
        """The `top` tokens that were most likely to be drawn but for those that are shown, by raw probability."""
        while not scores.is_complete and len(scores.token_ids) < self.top:
            scores.widen()
        possible = scores.token_ids[: self.top]
        possible = possible[~np.isin(possible, shown)]
        return in_order(possible, raw.logprobs(possible))[0]

    def _candidates(self, raw: Raw, scores: Scores, shown: Ints, *, has_probs: bool) -> tuple[Candidate, ...]:
        token_ids = shown.tolist()
        cuts, moves = provenance(scores.changes, shown)
        probs: Iterable[float | None] = repeat(None)
        if has_probs and self.is_greedy:
            best = int(scores.token_ids[0])
            probs = [float(token_id == best) for token_id in token_ids]
            cuts = [None if token_id == best else cut or GREEDY for token_id, cut in zip(token_ids, cuts, strict=True)]
        elif has_probs:
            probs = final_probs(scores, shown)
        logprobs = raw.logprobs(shown).tolist()
        return tuple(map(Candidate, token_ids, map(self.piece, token_ids), logprobs, probs, cuts, moves))


def choose_each(positions: Mapping[int, tuple[Sampler, Logits, Context]], draw_each: DrawEach) -> dict[int, Choice]:
    """What samplers that draw at once choose from logits (vocab,), all in one step.

    Positions that a drawer cannot decide are left out.
    """
    draws = {place: sampler.draw(context) for place, (sampler, _, context) in positions.items()}
    requests = [
        DrawRequest(sampler.drawer, logits, draws[place] or 0.0, context.masks)
        for place, (sampler, logits, context) in positions.items()
        if sampler.drawer is not None
    ]
    return {
        place: sampler.record_draw(token, logits, context, draws[place])
        for (place, (sampler, logits, context)), token in zip(positions.items(), draw_each(requests), strict=True)
        if token is not None
    }


def likeliest(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that a constraint left, in the sampler's order."""

    def place(candidate: Candidate) -> tuple[float, float, int]:
        score = candidate.logprob + sum(change for _, change in candidate.moved)
        return -(candidate.prob or 0.0), -score, candidate.token_id

    return sorted([each for each in candidates if each.removed_by in (None, GREEDY)], key=place)


def draw_token(scores: Scores, draw: float) -> int:
    """The token whose stretch of the cumulative distribution holds `draw`.

    Stretches lie in order of final probability, ties by token id. The head is tried first; what lies on its border
    may have a tie outside.
    """
    while True:
        probs = scores.probs
        place = int(probs.cumsum().searchsorted(draw, side="right"))
        is_sure = place < len(probs) and (scores.is_complete or probs[place] > probs[-1])
        if is_sure and not has_tie(probs, place):
            return int(scores.token_ids[place])
        if is_sure or scores.is_complete:
            return int(inverse_cdf(scores.token_ids, probs, draw))
        scores.widen()


def has_tie(probs: Floats, place: int) -> bool:
    """Whether another of these sorted probabilities is the same."""
    prob = probs[place]
    return bool((place > 0 and probs[place - 1] == prob) or (place + 1 < len(probs) and probs[place + 1] == prob))


def inverse_cdf(token_ids: Ints, probs: Floats, draws: float | Floats) -> Ints:
    """The tokens whose stretches hold `draws`, for probabilities (n,) in any order that sum to 1."""
    order = np.lexsort((token_ids, -probs))
    places = probs[order].cumsum().searchsorted(draws, side="right")
    # Rounding may leave the sum just below 1: the last possible token owns what is missing.
    return token_ids[order[np.minimum(places, np.count_nonzero(probs) - 1)]]


def final_probs(scores: Scores, shown: Ints) -> list[float]:
    """The final probability of each of these tokens."""
    head, count = scores.token_ids, min(len(shown), len(scores.token_ids))
    if (count == len(shown) or scores.is_complete) and np.array_equal(head[:count], shown[:count]):
        return (scores.weights[:count] / scores.mass).tolist() + [0.0] * (len(shown) - count)
    places = (shown[:, None] == head).argmax(1)
    is_there = head[places] == shown
    if scores.is_complete or is_there.all():
        return np.where(is_there, scores.weights[places] / scores.mass, 0.0).tolist()
    return (np.exp(scores.whole[shown] - scores.peak) / scores.mass).tolist()


def provenance(changes: Sequence[Change], shown: Ints) -> tuple[list[str | None], list[tuple[tuple[str, float], ...]]]:
    """What cut each of these tokens, and what moved it by how much before that."""
    cuts: list[str | None] = [None] * len(shown)
    moves: list[tuple[tuple[str, float], ...]] = [()] * len(shown)
    for change in changes:
        amounts = change.of(shown)
        if not any(amounts):
            continue
        for place, amount in enumerate(amounts):
            if not amount or cuts[place] is not None:
                continue
            if amount == -math.inf:
                cuts[place] = change.name
            else:
                moves[place] += ((change.name, amount),)
    return cuts, moves

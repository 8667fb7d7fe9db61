"""The search of beams itself; it knows no engine and no cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokenglass.model.decoding.beam_scores import Continuations
from tokenglass.model.decoding.gate import Gate
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.sequence import Sequence, reason_to_stop
from tokenglass.model.engine.engine import Logits
from tokenglass.model.errors import NothingPossible, ParameterError
from tokenglass.model.records.steps import Choice, Finish, Reason, Totals
from tokenglass.model.sampling.chain import build_chain
from tokenglass.model.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenglass.model.sampling.constraints import ConstraintState


@dataclass(frozen=True, slots=True)
class BeamParameters:
    """How many beams there are, and how finished ones are ranked and awaited.

    `length_penalty` is the power of its number of new tokens that a beam's sum of log-probabilities is divided by.
    `early_stopping` ends with as many finished beams as there are beams; otherwise the search goes on while a running
    beam is ahead of the worst of them.
    """

    beams: int
    length_penalty: float = 1.0
    early_stopping: bool = False

    def __post_init__(self) -> None:
        if self.beams < 2:
            raise ParameterError(f"beams is {self.beams}; expected at least 2")
        if not abs(self.length_penalty) <= 100:
            raise ParameterError(f"length_penalty is {self.length_penalty}; expected between -100 and 100")


@dataclass(slots=True, eq=False)
class Beam:
    """One text of the search."""

    number: int
    token_ids: list[int]
    logprob: float = 0.0  # sum over the new tokens, after processors
    row: int = 0  # of its parent in the last pass
    gate: Gate | None = None  # watches for stop strings
    constraint: ConstraintState | None = None
    reason: Reason | None = None
    score: float = -math.inf  # once it has ended


@dataclass(frozen=True, slots=True)
class Move:
    """What became of a beam in a pass. `parent` is the beam that a new one has branched off."""

    beam: Beam
    choice: Choice | None = None  # None while the prompt is read
    parent: int | None = None


class Search:
    """The beams that run, and the best of those that have ended."""

    def __init__(
        self, tokenizer: Tokenizer, request: Request, parameters: BeamParameters, limit: int, vocab_size: int | None
    ):
        self.ended: list[Beam] = []
        self.has_begun = False  # whether a beam was ever extended
        self._tokenizer = tokenizer
        self._request = request
        self._parameters = parameters
        self._limit = limit
        self._chain = build_chain(request.sampling.replace(temperature=0.0))
        self._lender = Sequence(tokenizer, replace(request, constraint=None), limit)  # of what processors may know
        first = Beam(0, list(request.prompt_ids), gate=self._gate() if request.stops else None)
        if request.constraint is not None:
            first.constraint = request.constraint.begin(tokenizer, request.eos_token_ids, vocab_size)
        self.running = [first]
        self._numbers = 1

    def extend(self, logits: list[Logits], negative: list[Logits] | None) -> list[Move]:
        """Go one token further by the logits (vocab,) of each running beam.

        Of all continuations the best are looked at, enough of them that as many beams can go on whatever has ended.
        One that ends counts only if it is among the first. Raises EngineError.
        """
        count = max(2, 1 + len(self._request.eos_token_ids)) * self._parameters.beams
        self.has_begun, parents = True, self.running
        continuations = [self._continuations(row, logits, negative, count) for row in range(len(parents))]
        found = [
            (-(parent.logprob + logprob), row, token_id)
            for row, (parent, following) in enumerate(zip(parents, continuations, strict=True))
            for token_id, logprob in ([] if following is None else following.best(count))
        ]
        if not found:
            moves = [Move(parent) for parent in parents]
            self.end("constraint")
            return moves
        running: list[Beam] = []
        ended: list[Beam] = []
        for place, (negated, row, token_id) in enumerate(sorted(found)[:count]):
            if place >= self._parameters.beams and len(running) == self._parameters.beams:
                break
            beam = self._child(parents[row], row, token_id, -negated)
            if beam.reason is None and len(running) < self._parameters.beams:
                running.append(beam)
            elif beam.reason is not None and place < self._parameters.beams:
                ended.append(beam)
        self.running = running
        self._end(ended)
        moves = list(self._moves(parents, continuations, [*running, *ended]))
        if self._is_over():
            self.running = []
        return moves

    @property
    def are_open(self) -> bool:
        return bool(self.running)

    def end(self, reason: Reason) -> None:
        for beam in self.running:
            beam.reason = reason
        self._end(self.running)
        self.running = []

    def finishes(self, totals: Callable[[int], Totals]) -> Iterator[Finish]:
        """The ends of the best texts, best first, once none is running."""
        while self.ended and not self.running:
            beam, gate = self.ended[0], self._gate()
            assert beam.reason is not None
            new_ids = beam.token_ids[len(self._request.prompt_ids) :]
            text = "".join([gate.add(token_id) for token_id in (new_ids[:-1] if beam.reason == "eos" else new_ids)])
            text += gate.flush()
            reason = "stop" if gate.stopped else beam.reason
            del self.ended[0]
            yield Finish(beam.number, reason, text, totals(beam.number), beam.score)

    def _gate(self) -> Gate:
        request = self._request
        healed = len(request.healed.decode("utf-8", "replace"))
        return Gate(self._tokenizer, request.prompt_ids, request.stops, healed=healed)

    def _continuations(
        self, row: int, logits: list[Logits], negative: list[Logits] | None, count: int
    ) -> Continuations | None:
        beam = self.running[row]
        self._lender.token_ids = beam.token_ids
        context = self._lender.context(None if negative is None else negative[row])
        try:
            if beam.constraint is not None:
                context = replace(context, masks=(beam.constraint.mask(), *context.masks))
            return Continuations(logits[row], context, self._chain, count, self._request.top)
        except NothingPossible:
            return None

    def _child(self, parent: Beam, row: int, token_id: int, logprob: float) -> Beam:
        """The parent's text and one more token."""
        token_ids = [*parent.token_ids, token_id]
        reason = reason_to_stop(token_id, len(token_ids), self._request, self._limit)
        gate, constraint = None, None
        if parent.constraint is not None:
            constraint = parent.constraint.fork()
            constraint.advance(token_id)
        if parent.gate is not None and reason != "eos":
            gate = parent.gate.fork()
            gate.add(token_id)
            reason = "stop" if gate.stopped else reason
        return Beam(parent.number, token_ids, logprob, row, gate, constraint, reason)

    def _end(self, beams: list[Beam]) -> None:
        """Keep the best of all that have ended."""
        for beam in beams:
            beam.score = beam.logprob / self._scale(beam)
        ranked = sorted([*self.ended, *beams], key=lambda beam: -beam.score)
        self.ended = ranked[: self._parameters.beams]

    def _scale(self, beam: Beam) -> float:
        length = len(beam.token_ids) - len(self._request.prompt_ids)
        return float(max(1, length) ** self._parameters.length_penalty)

    def _is_over(self) -> bool:
        """Whether no running beam is expected to end among the best."""
        if not self.running or len(self.ended) < self._parameters.beams:
            return not self.running
        ahead = self.running[0].logprob / self._scale(self.running[0])
        return self._parameters.early_stopping or ahead <= self.ended[-1].score

    def _moves(
        self, parents: list[Beam], continuations: list[Continuations | None], children: list[Beam]
    ) -> Iterator[Move]:
        """The children, the first of each parent under its number, and the parents that have none."""
        piece = self._tokenizer.piece
        childless = set(range(len(parents)))
        for beam in children:
            following, parent = continuations[beam.row], None
            assert following is not None
            if beam.row not in childless:
                parent, beam.number = beam.number, self._numbers
                self._numbers += 1
            childless.discard(beam.row)
            is_kept = beam.reason is None or beam in self.ended
            yield Move(beam, following.choice(beam.token_ids[-1], piece, "sampled" if is_kept else "pruned"), parent)
        for row in sorted(childless):
            following = continuations[row]
            if following is not None:
                token_id, _ = following.best(1)[0]
                yield Move(parents[row], following.choice(token_id, piece, "pruned"))
            else:
                yield Move(parents[row])

"""The search of beams itself; it knows no engine and no cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tokenglass.model.decoding.beam_scores import Continuations
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.engine.engine import Logits
from tokenglass.model.errors import NothingPossible, ParameterError
from tokenglass.model.records.steps import Choice, Finish, Reason, Totals


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

    sequence: Sequence
    text: str = ""  # as far as no stop string may have begun
    logprob: float = 0.0  # sum over the new tokens, after processors
    row: int = 0  # of its parent in the last pass
    score: float = -math.inf  # once it has ended

    def extend(self, token_id: int, logprob: float, row: int) -> Beam:
        """This text and one more token; the sum of log-probabilities is then `logprob`."""
        sequence = self.sequence.fork(self.sequence.number)
        return Beam(sequence, self.text + sequence.append(token_id), logprob, row)


@dataclass(frozen=True, slots=True)
class Move:
    """What became of a beam in a pass. `parent` is the beam that a new one has branched off."""

    beam: Beam
    choice: Choice | None = None  # None while the prompt is read
    parent: int | None = None


class Search:
    """The beams that run, and the best of those that have ended."""

    def __init__(self, first: Sequence, parameters: BeamParameters, end_tokens: int):
        """`first` is the text before its first new token, whose sampler takes the most probable; there are so many end
        tokens."""
        self.running = [Beam(first)]
        self.ended: list[Beam] = []
        self.has_begun = False  # whether a beam was ever extended
        self._parameters = parameters
        self._looked_at = max(2, 1 + end_tokens) * parameters.beams  # continuations of a pass
        self._numbers = 1

    def extend(self, logits: list[Logits], negative: list[Logits] | None) -> list[Move]:
        """Go one token further by the logits (vocab,) of each running beam.

        Of all continuations the best are looked at, enough of them that as many beams can go on whatever has ended.
        One that ends counts only if it is among the first. Raises EngineError.
        """
        count, parents = self._looked_at, self.running
        self.has_begun = True
        negatives = [None] * len(parents) if negative is None else list(negative)
        continuations = [
            continuations_of(parent.sequence, row, beside, count)
            for parent, row, beside in zip(parents, logits, negatives, strict=True)
        ]
        candidates = [
            (-(parent.logprob + logprob), row, token_id)
            for row, (parent, following) in enumerate(zip(parents, continuations, strict=True))
            for token_id, logprob in ([] if following is None else following.best(count))
        ]
        if not candidates:
            moves = [Move(parent) for parent in parents]
            self.end("constraint")
            return moves
        running: list[Beam] = []
        ended: list[Beam] = []
        for place, (negated, row, token_id) in enumerate(sorted(candidates)[:count]):
            if place >= self._parameters.beams and len(running) == self._parameters.beams:
                break
            beam = parents[row].extend(token_id, -negated, row)
            if beam.sequence.reason is None and len(running) < self._parameters.beams:
                running.append(beam)
            elif beam.sequence.reason is not None and place < self._parameters.beams:
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
            beam.sequence.reason = reason
        self._end(self.running)
        self.running = []

    def finishes(self, totals: Callable[[int], Totals]) -> Iterator[Finish]:
        """The ends of the best texts, best first, once none is running."""
        while self.ended and not self.running:
            beam = self.ended[0]
            finish = beam.sequence.finish(totals(beam.sequence.number))
            del self.ended[0]
            yield replace(finish, text=beam.text + finish.text, score=beam.score)

    def _end(self, beams: list[Beam]) -> None:
        """Keep the best of all that have ended."""
        for beam in beams:
            beam.score = beam.logprob / self._scale(beam)
        ranked = sorted([*self.ended, *beams], key=lambda beam: -beam.score)
        self.ended = ranked[: self._parameters.beams]

    def _scale(self, beam: Beam) -> float:
        return float(max(1, beam.sequence.new_tokens) ** self._parameters.length_penalty)

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
        childless = set(range(len(parents)))
        for beam in children:
            following, sequence, parent = continuations[beam.row], beam.sequence, None
            assert following is not None
            if beam.row not in childless:
                parent, sequence.number = sequence.number, self._numbers
                self._numbers += 1
            childless.discard(beam.row)
            is_kept = sequence.reason is None or beam in self.ended
            yield Move(beam, following.choice(sequence.token_ids[-1], "sampled" if is_kept else "pruned"), parent)
        for row in sorted(childless):
            following = continuations[row]
            if following is not None:
                token_id, _ = following.best(1)[0]
                yield Move(parents[row], following.choice(token_id, "pruned"))
            else:
                yield Move(parents[row])


def continuations_of(sequence: Sequence, logits: Logits, negative: Logits | None, count: int) -> Continuations | None:
    """At least `count` continuations of a text, or None where nothing may follow. Raises EngineError."""
    try:
        return Continuations(sequence.sampler, logits, sequence.context(negative), count)
    except NothingPossible:
        return None

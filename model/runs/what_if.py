"""What other settings would have drawn, from the distributions that a trace keeps: same seed, same draws, no model.

A trace names the most probable tokens of each step. Of the others it is known what they weigh at least and at most
(unseen.py), so the sampler's own chain runs on two distributions, with the least and with the most beside the tokens
that are named. What it makes of the named tokens goes one way as that weight grows; so where both give the same token,
the real distribution does. Otherwise the trace does not tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import numpy as np

from tokenglass.model.decoding.modes import AUTOREGRESSIVE, MODES
from tokenglass.model.errors import NothingPossible, ParameterError
from tokenglass.model.records.steps import Candidate, Choice, Record, Step
from tokenglass.model.runs.playback import Texts
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.unseen import ROUNDING, Unseen
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.draw import uniform
from tokenglass.model.sampling.parameters import KINDS, SAMPLERS, SamplingParameters
from tokenglass.model.sampling.raw import Raw
from tokenglass.model.sampling.rescaling import Temperature
from tokenglass.model.sampling.sampler import Sampler, draw_token, final_probs
from tokenglass.model.sampling.truncation import XTC, MinP, TopK, TopP

ASKABLE = (Temperature, TopK, TopP, MinP, XTC)
DRAWING = tuple(kind.name for kind in KINDS if kind.only_for_draws)
FINE = 1000  # tokens that the least weight is spread over, so that no cut falls far from where it would
CLOSE = 1e-9  # a logarithm between the last token that is named and those that are not
LARGEST = 1e3  # a logarithm or an entropy; a trace may hold any number
MOST_POSITIONS = 2**40
MOST = 2**17  # tokens that stand for those that are not named


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Up to where a text is certainly the same, and what comes there.

    `choice` is the recorded one; None: the trace ends, and the text is the same. `instead` is what the other settings
    would have drawn, and `probs` its final probability, at least and at most; None: the trace does not tell.
    """

    sequence: int
    same_tokens: int
    choice: Choice | None = None
    instead: Candidate | None = None
    probs: tuple[float, float] | None = None


@dataclass(slots=True)
class Text:
    """One sequence on its way: its tokens so far, and how often each position was drawn afresh."""

    choices: dict[int, Choice] = field(default_factory=dict)  # by position
    attempts: dict[int, int] = field(default_factory=dict)

    def rewind(self, length: int) -> None:
        self.attempts = {place: count for place, count in self.attempts.items() if place <= length}
        self.attempts[length] = self.attempts.get(length, 0) + 1
        self.choices = {place: choice for place, choice in self.choices.items() if place < length}

    def may_be_banned(self, piece: bytes, bans: tuple[str, ...]) -> bool:
        """Whether with this piece it holds a banned phrase, which is taken back, or the beginning of one."""
        said = b"".join([*(choice.piece for choice in self.choices.values()), piece]).decode("utf-8", "replace")
        return any(
            ban in said[-len(piece) - len(ban) :] or any(said.endswith(ban[:end]) for end in range(1, len(ban)))
            for ban in bans
        )

    def beside(self, answer: WhatIf, standing: Sequence[Choice]) -> WhatIf:
        """The answer to this text's next choice, told of the text that stands: both may have been taken back later."""
        first = next(iter(self.choices), None if answer.choice is None else answer.choice.position) or 0
        standing = [choice for choice in standing if choice.position >= first]  # a branch has its parent's, too
        same = sum(1 for _ in takewhile(is_same_token, zip(self.choices.values(), standing, strict=False)))
        stands = standing[same] if same < len(standing) else answer.choice
        comes = answer.instead if same == len(self.choices) else None
        if comes is None or stands is None or comes.token_id == stands.token_id:
            return WhatIf(answer.sequence, same, stands)
        return replace(answer, same_tokens=same, choice=stands)


def is_same_token(pair: tuple[Choice, Choice]) -> bool:
    return pair[0].token_id == pair[1].token_id


def what_if(run: Run, records: Iterable[Record], sampling: SamplingParameters) -> Iterator[WhatIf]:
    """For each text the first step at which these settings would have drawn another token, or may have.

    Raises ParameterError where a trace cannot tell it of this run or these settings.
    """
    check(run, sampling)
    chance, is_same = Chance(run, sampling), sampling == run.request.sampling
    steps = [record for record in records if isinstance(record, Step)]
    standing = Texts()
    for step in steps:
        standing.add(step)
    texts: dict[int, Text] = {}
    answered: set[int] = set()
    for step in steps:
        if step.sequence in answered:
            continue
        text = texts.setdefault(step.sequence, Text())
        if step.rewound_to is not None:
            text.rewind(step.rewound_to)
        for choice in step.settled:
            attempt = text.attempts.get(choice.position, 0)
            answer = None if is_same else chance.of(choice, step.sequence, attempt)
            if answer is not None:
                answered.add(step.sequence)
                if answer.instead is not None and text.may_be_banned(answer.instead.piece, run.request.bans):
                    answer = replace(answer, instead=None, probs=None)
                yield text.beside(answer, standing.choices[step.sequence])
                break
            text.choices[choice.position] = choice
    yield from (WhatIf(number, len(text.choices)) for number, text in texts.items() if number not in answered)


def check(run: Run, sampling: SamplingParameters) -> None:
    """Raises ParameterError where a trace does not tell what these settings do."""
    mode = MODES.get(run.mode.name)
    if run.search.has_beams or mode is None or not (mode.is_lossless or run.mode.name == AUTOREGRESSIVE):
        raise ParameterError("what if: beams and --mode parallel do not draw token after token; ask of another run")
    on = {processor.name for processor in sampling.processors if processor.acts(sampling.is_greedy)}
    whole = on & {"guidance", "typical-p", "top-n-sigma"}
    if whole:
        raise ParameterError(f"what if: {min(whole)} looks at every token, and a trace keeps the most probable alone")
    drawing = [name for name in sampling.samplers if name in DRAWING]
    if [name for name in SAMPLERS if name in drawing] != drawing or sampling.samplers[-len(drawing) :] != (*drawing,):
        raise ParameterError("what if: --samplers has another order, and a trace does not tell what comes of it")
    values = sampling.values
    raises = values["repetition_penalty"] < 1 or min(values["presence_penalty"], values["frequency_penalty"]) < 0
    if raises or any(bias > 0 for _, bias in values["logit_bias"]):
        raise ParameterError("what if: a penalty or a bias favours tokens that the trace may not name")


@dataclass(frozen=True, slots=True)
class Named:
    """The tokens of a choice that can be put in order, by token id, with their scores; and the rest.

    A penalty may have put a named token below the last that the trace names: it counts with the rest.
    """

    tokens: tuple[Candidate, ...]
    scores: tuple[float, ...]
    lower: tuple[float, ...]  # scores of those that count with the rest
    unseen: Unseen

    @staticmethod
    def of(choice: Choice) -> Named | None:
        """None where the trace does not tell enough of it."""
        is_beyond = choice.rank is None or choice.rank > len(choice.candidates)
        top = [one for one in choice.candidates if not (is_beyond and one.token_id == choice.token_id)]
        is_sane = all(
            (-LARGEST < one.logprob <= ROUNDING and abs(score_of(one)) < LARGEST) or is_cut(one) for one in top
        )
        if not top or not is_sane or choice.entropy is None or not 0 <= choice.entropy < LARGEST:
            return None
        probs = [math.exp(one.logprob) for one in top]
        surprise = choice.entropy * math.log(2) + sum(p * one.logprob for p, one in zip(probs, top, strict=True))
        unseen = Unseen(1 - sum(probs), surprise, min(one.logprob for one in top))
        possible = [(one, score_of(one)) for one in sorted(top, key=lambda one: one.token_id)]
        above = [(one, score) for one, score in possible if score >= unseen.highest]
        lower = tuple(score for _, score in possible if -math.inf < score < unseen.highest)
        return Named(tuple(one for one, _ in above), tuple(score for _, score in above), lower, unseen)

    def rest(self, temperature: float) -> tuple[float, float]:
        """What all others weigh, at least and at most, as a number of tokens of the highest probability among them."""
        least, most = self.unseen.count(temperature)
        lower = sum(math.exp((score - self.unseen.highest) / temperature) for score in self.lower)
        return lower + least, lower + most


def is_cut(candidate: Candidate) -> bool:
    """Whether it was forbidden, whatever would have been drawn."""
    return candidate.removed_by is not None and candidate.removed_by not in DRAWING


def score_of(candidate: Candidate) -> float:
    """Its logarithm after all that moves single tokens, which is no different under other settings."""
    return -math.inf if is_cut(candidate) else candidate.logprob + sum(amount for _, amount in candidate.moved)


class Chance:
    """What the settings draw from the distribution of a choice."""

    def __init__(self, run: Run, sampling: SamplingParameters):
        self._run = run
        off = {kind.settings()[0].name: kind.settings()[0].off for kind in KINDS if kind not in ASKABLE}
        sampling = sampling.replace(**off)
        self._is_greedy = sampling.is_greedy
        self._temperature = sampling.get(Temperature).temperature or 1.0
        self._top_k, self._top_p = sampling.get(TopK).k, sampling.get(TopP).p
        self._has_min_p = sampling.get(MinP).is_on
        self._sampler = Sampler(sampling, lambda _: b"", top=0)
        request = run.request
        self._is_lowered = any(  # whether a token that is not named may be less probable than the model has it
            processor.acts(self._is_greedy) and not processor.only_for_draws
            for processor in request.sampling.processors
        ) or bool(request.bans or request.constraint or request.ignore_eos or request.min_new_tokens or request.healed)

    def of(self, choice: Choice, sequence: int, attempt: int) -> WhatIf | None:
        """None where the same token comes."""
        if choice.status == "forced":
            return None
        named = Named.of(choice)
        if named is None or not named.tokens or not 0 <= choice.position < MOST_POSITIONS:
            return WhatIf(sequence, 0, choice)
        least, most = named.rest(self._temperature)
        if self._is_lowered or self._has_min_p or self._top_k > len(named.tokens):
            least = 0.0
        more = math.ceil(1 / self._top_p) + 1 if 0 < self._top_p < 1 else 0
        if most + more > MOST:
            return WhatIf(sequence, 0, choice)
        seeds = dict(enumerate(self._run.search.seeds))
        seed = seeds.get(sequence, self._run.seed) % 2**64
        context = Context(
            range(choice.position),
            self._run.prompt_length,
            seed,
            attempt,
            spared=frozenset(
                index
                for index, one in enumerate(named.tokens)
                if one.piece == b"\n" or one.token_id in self._run.request.eos_token_ids
            ),
        )
        low, high = (self._draw(named, rest, context) for rest in (self._fine(least), (math.ceil(most) + more, 0.0)))
        if low[:2] != high[:2] or low[0] >= len(named.tokens):
            return WhatIf(sequence, 0, choice)
        token = named.tokens[low[0]]
        if token.token_id == choice.token_id:
            return None
        return WhatIf(sequence, 0, choice, token, (min(low[2], high[2]), max(low[2], high[2])))

    def _fine(self, weight: float) -> tuple[int, float]:
        """The least weight as many tokens, and how far each lies below the highest."""
        weight *= max(0.0, 1 - 1 / (FINE * self._top_p)) if self._top_p > 0 else 0.0
        count = max(FINE, math.ceil(weight))
        return (count, self._temperature * math.log(weight / count)) if weight > 0 else (0, 0.0)

    def _draw(self, named: Named, rest: tuple[int, float], context: Context) -> tuple[int, int, float]:
        """The place of the token that is drawn, that of the most probable one that is left, and a probability."""
        count, below = rest
        others = np.full(count, named.unseen.highest - CLOSE + below)
        try:
            scores = self._sampler.scores(Raw.of(np.concatenate((named.scores, others))), context)
        except NothingPossible:
            return len(named.tokens), 0, 0.0
        first = place = int(scores.token_ids[0])
        if self._is_greedy:
            return place, first, 1.0
        place = draw_token(scores, uniform(context.seed, context.position, attempt=context.attempt))
        return place, first, final_probs(scores, np.array([place]))[0]

"""Where two models, or two kept runs, part on the same tokens: divergence, ranks, top tokens of each position."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.measuring.scoring import LOGITS, check_windows, given_choices, logits_of_tokens
from tokenglass.model.records.steps import Candidate, Choice
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.provenance import Floats
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.text.tokenizer import Tokenizer

Name = int | bytes | None
Naming = Callable[[Choice | Candidate], Name]


@dataclass(frozen=True, slots=True)
class Difference:
    """One position in two distributions. `divergence` is that of the second from the first, in bits (Kullback and
    Leibler 1951): exact, or at least so much where only some candidates are known; None: not reported, or infinite.
    `moved` is the probability that lies on other tokens in the second (the total variation distance)."""

    first: Choice
    second: Choice
    divergence: float | None
    is_exact: bool
    moved: float | None = None

    @property
    def position(self) -> int:
        return self.first.position

    @property
    def is_flip(self) -> bool:
        """Whether another token is the most probable one."""
        name = naming(self.first, self.second)
        tops = [top_of(choice) for choice in (self.first, self.second)]
        return len({name(top) for top in tops if top is not None}) > 1

    @property
    def parts(self) -> bool:
        """Whether the two texts have other tokens here."""
        name = naming(self.first, self.second)
        return name(self.first) != name(self.second)

    @property
    def rank_change(self) -> int | None:
        """Ranks that the token fell by in the second; negative where it rose."""
        first, second = self.first.rank, self.second.rank
        return None if first is None or second is None or self.parts else second - first


def naming(first: Choice, second: Choice) -> Naming:
    """What tells the tokens of two choices apart: their ids, or what they say where one of the two comes from a server
    that reports no ids, for which negative ones stand."""
    tokens: tuple[Choice | Candidate, ...] = (first, second, *first.candidates, *second.candidates)
    if all(token.token_id is None or token.token_id >= 0 for token in tokens):
        return lambda token: token.token_id
    return lambda token: token.piece


def top_of(choice: Choice) -> Candidate | None:
    return max(choice.candidates, key=lambda candidate: candidate.logprob, default=None)


@dataclass(frozen=True, slots=True)
class Summary:
    """Sums over positions. Means are over those whose number is known; None where none is."""

    tokens: int
    divergence: float | None  # mean, bits
    moved: float | None  # mean
    is_exact: bool
    flips: int
    rank_changes: int
    first_flip: int | None  # position
    parting: int | None  # position of the first other token
    first_bits: float | None  # per token of the text
    second_bits: float | None

    @staticmethod
    def of(differences: Sequence[Difference]) -> Summary:
        divergences = [each.divergence for each in differences if each.divergence is not None]
        moved = [each.moved for each in differences if each.moved is not None]
        bits = [
            [-choice.logprob / math.log(2) for choice in choices if choice.logprob is not None]
            for choices in ([each.first for each in differences], [each.second for each in differences])
        ]
        first, second = map(mean_of, bits)
        return Summary(
            tokens=len(differences),
            divergence=mean_of(divergences),
            moved=mean_of(moved),
            is_exact=all(each.is_exact for each in differences),
            flips=sum(each.is_flip for each in differences),
            rank_changes=sum(bool(each.rank_change) for each in differences),
            first_flip=next((each.position for each in differences if each.is_flip), None),
            parting=next((each.position for each in differences if each.parts), None),
            first_bits=first,
            second_bits=second,
        )


def mean_of(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def worst(differences: Iterable[Difference], count: int) -> list[Difference]:
    """Those that differ most, the most first: by divergence, and where it is infinite by what moved."""
    return sorted(differences, key=lambda each: (-(each.divergence or 0.0), -(each.moved or 0.0)))[:count]


def compare_models(
    first: Engine, second: Engine, tokenizer: Tokenizer, token_ids: Sequence[int], *, top: int = 5
) -> Iterator[Difference]:
    """Every token of one text but the first, in two models of one tokenizer. Raises PromptError, EngineError."""
    size, stride = check_windows(None, None, min(first.limit, second.limit))
    most = max(1, min(256, LOGITS // (4 * max(first.vocab_size, second.vocab_size))))
    both = (logits_of_tokens(engine, token_ids, size, stride, most) for engine in (first, second))
    for (position, one), (_, other) in zip(*both, strict=True):
        ids = token_ids[position:][: len(one)]
        columns = (
            given_choices(engine, tokenizer, rows, position, ids, max(1, top))
            for engine, rows in ((first, one), (second, other))
        )
        for row, (old, new) in enumerate(zip(*columns, strict=True)):
            size = min(len(one[row]), len(other[row]))  # what one of them has beyond is padding
            logs = log_softmax(one[row][:size]), log_softmax(other[row][:size])
            yield Difference(old, new, divergence(*logs), is_exact=True, moved=distance(*map(np.exp, logs)))


def compare_settings(
    engine: Engine,
    tokenizer: Tokenizer,
    token_ids: Sequence[int],
    settings: tuple[SamplingParameters, SamplingParameters],
    *,
    top: int = 5,
) -> Iterator[Difference]:
    """Every token of one text but the first, in the final distributions that two settings of the samplers leave.

    A divergence is None where the second can never draw what the first may. Raises PromptError, EngineError.
    """
    size, stride = check_windows(None, None, engine.limit)
    most = max(1, min(256, LOGITS // (4 * engine.vocab_size)))
    samplers = [Sampler(each, tokenizer.piece, top, engine.measure) for each in settings]
    for start, rows in logits_of_tokens(engine, token_ids, size, stride, most):
        for position, logits in enumerate(rows, start):
            context = Context(token_ids[:position], prompt_length=position, seed=0)
            raw = samplers[0].raw(logits)
            scored = [(each, each.scores(raw, context)) for each in samplers]
            old, new = (each.record(raw, scores, token_ids[position]) for each, scores in scored)
            one, other = (each.final(scores) for each, scores in scored)
            with np.errstate(divide="ignore"):
                bits = divergence(np.log(one), np.log(other))
            known = bits if math.isfinite(bits) else None
            yield Difference(old, new, known, is_exact=True, moved=distance(one, other))


def rescore(
    engine: Engine, tokenizer: Tokenizer, prompt_ids: Sequence[int], recorded: Sequence[Choice], *, top: int = 64
) -> Iterator[Difference]:
    """Recorded tokens behind their prompt, and the same in another model. Raises PromptError, EngineError."""
    token_ids = [*prompt_ids, *(choice.token_id for choice in recorded if choice.token_id is not None)]
    size, stride = check_windows(None, None, engine.limit)
    most = max(1, min(256, LOGITS // (4 * engine.vocab_size)))
    by_position = {choice.position: choice for choice in recorded}
    for position, rows in logits_of_tokens(engine, token_ids, size, stride, most):
        for new in given_choices(engine, tokenizer, rows, position, token_ids[position:][: len(rows)], top):
            if (old := by_position.get(new.position)) is not None:
                yield Difference(old, new, divergence_at_least(old, new), is_exact=False)


def compare_texts(first: Sequence[Choice], second: Sequence[Choice]) -> Iterator[Difference]:
    """The tokens of two kept texts behind the same prompt, up to and with the first that is another."""
    for old, new in zip(first, second, strict=False):
        yield (difference := Difference(old, new, divergence_at_least(old, new), is_exact=False))
        if difference.parts:
            return


def divergence(first: Floats, second: Floats) -> float:
    """Of the second distribution from the first, in bits, from the log-probabilities (vocab,) of the same tokens."""
    possible = first > -math.inf
    one, other = first[possible], second[possible]
    return max(0.0, float((np.exp(one) * (one - other)).sum()) / math.log(2))


def distance(first: Floats, second: Floats) -> float:
    """The total variation distance of two distributions (vocab,): half the sum of the differences."""
    return float(np.abs(first - second).sum()) / 2


def log_softmax(logits: Logits) -> Floats:
    below = logits.astype(np.float64)
    below -= below.max()
    below -= math.log(float(np.exp(below).sum()))
    return below


def divergence_at_least(first: Choice, second: Choice) -> float | None:
    """The same from the candidates that both name, all others taken as one: never more than over all tokens."""
    name = naming(first, second)
    old, new = (probs_of(choice.candidates, name) for choice in (first, second))
    pairs = [(old[token], new[token]) for token in old.keys() & new.keys()]
    if not pairs:
        return None
    pairs.append((1 - sum(p for p, _ in pairs), 1 - sum(q for _, q in pairs)))
    bits = sum(p * math.log2(p / q) for p, q in pairs if p > 0 and q > 0)
    return max(0.0, bits)


def probs_of(candidates: Sequence[Candidate], name: Naming) -> dict[Name, float]:
    """By name, where only one has it."""
    count = Counter(map(name, candidates))
    return {name(each): math.exp(each.logprob) for each in candidates if each.logprob <= 0.0 and count[name(each)] == 1}

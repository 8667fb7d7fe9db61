"""The exact probability of each of several answers to one prompt: one prefill, then all answers in one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from tokenglass.model.config.fields import quote
from tokenglass.model.engine.cache import KVCache, common_prefix
from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.measuring.scoring import LOGITS
from tokenglass.model.text.tokenizer import Tokenizer

MOST_ROWS = 16  # answers in one pass
COPIES = 256 * 2**20  # bytes that their copies of the prompt's cache may take, if one answer lets them

Encode = Callable[[str], tuple[int, ...]]  # the prompt and what an answer begins with, as token ids


class Pieces(Protocol):
    """What answers need of a tokenizer, here or behind a server."""

    def encode_bare(self, text: str) -> tuple[int, ...]: ...

    def piece(self, token_id: int) -> bytes: ...

    def is_hidden(self, token_id: int) -> bool: ...


Logprobs = list[float]


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """A prompt and the tokens of each answer behind it.

    A tokenizer may cut the prompt's end and an answer together. Then the prompt's last token is taken back: the answers
    begin with `tail`, its bytes, and all probabilities are those given that the next token begins with them. Where more
    than that token would be cut otherwise, the answers in `apart` are cut by themselves.
    """

    context: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    tail: bytes = b""
    apart: tuple[str, ...] = ()

    @staticmethod
    def encode(tokenizer: Pieces, encode: Encode, answers: Sequence[str]) -> EncodedQuestion:
        """Raises ParameterError for fewer than two answers, and for two that are the same or say nothing."""
        if len(answers) < 2:
            raise ParameterError("give at least two answers to choose from")
        for number, answer in enumerate(answers):
            if answer in answers[:number]:
                raise ParameterError(f"the answer {quote(answer)} stands there twice; give each once")
        prompt = encode("")
        if not prompt:
            raise PromptError("the prompt is empty; give at least one character")
        whole = [encode(answer) for answer in answers]
        length = min(common_prefix(prompt, ids) for ids in whole)
        tail = b"" if length == len(prompt) else tokenizer.piece(prompt[-1])
        if length == len(prompt) or can_heal(tokenizer, prompt, whole, length):
            question = EncodedQuestion(prompt[:length], tuple(ids[length:] for ids in whole), tail)
        else:
            is_apart = [common_prefix(prompt, ids) < len(prompt) for ids in whole]
            question = EncodedQuestion(
                prompt,
                tuple(
                    tokenizer.encode_bare(answer) if apart else ids[len(prompt) :]
                    for answer, ids, apart in zip(answers, whole, is_apart, strict=True)
                ),
                apart=tuple(answer for answer, apart in zip(answers, is_apart, strict=True) if apart),
            )
        for number, ids in enumerate(question.answers):
            if not ids:
                raise ParameterError(f"the answer {quote(answers[number])} is no token behind this prompt")
            if ids in question.answers[:number]:
                raise ParameterError(f"the answer {quote(answers[number])} has the same tokens as another one")
        return question


def can_heal(tokenizer: Pieces, prompt: tuple[int, ...], whole: Sequence[tuple[int, ...]], length: int) -> bool:
    """Whether only the prompt's last token is cut otherwise, and the token in its place begins with it everywhere."""
    if length != len(prompt) - 1 or not length or tokenizer.is_hidden(prompt[-1]):
        return False
    tail = tokenizer.piece(prompt[-1])
    return all(len(ids) > length and tokenizer.piece(ids[length]).startswith(tail) for ids in whole)


@dataclass(frozen=True, slots=True)
class AnswerToken:
    token_id: int
    piece: bytes
    logprob: float  # raw, natural logarithm


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer beside the others. Logarithms are natural.

    `prob` is its share of all answers: of the joint probabilities, or with a prior of their ratios to it. An answer
    that begins another one gets there what the longer one leaves it; `logprob` is that of its tokens alone.
    """

    text: str
    prob: float
    logprob: float  # joint: the sum over its tokens
    mean_logprob: float  # the same over their number
    mean_prob: float  # share of the exponentials of those
    prior_logprob: float | None
    tokens: tuple[AnswerToken, ...]


@dataclass(frozen=True, slots=True)
class Choosing:
    """The answers in the order that they were given, and the probability that the text goes on as none of them."""

    answers: tuple[Answer, ...]
    outside: float
    prompt_tokens: int
    orders: int = 1  # of the listed options, over which the numbers are means
    tail: bytes = b""
    apart: tuple[str, ...] = ()

    def ranking(self, by_mean: bool = False) -> list[Answer]:
        """The most probable first; of the same, the one that was given first."""
        return sorted(self.answers, key=lambda answer: -(answer.mean_prob if by_mean else answer.prob))

    def parting(self, first: Answer, second: Answer) -> int:
        """How many tokens two answers begin with in common."""
        one, other = ([token.token_id for token in answer.tokens] for answer in (first, second))
        return common_prefix(one, other)


class Chooser:
    """Computes answers; prompts that begin as the last one did share its cache."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, chunk: int = 256):
        self._engine = engine
        self._tokenizer = tokenizer
        self._chunk = chunk
        self._cache: KVCache | None = None
        self._starting: dict[bytes, list[int]] = {}  # tokens that begin with some bytes

    def choose(self, encode: Encode, answers: Sequence[str], *, prior: tuple[int, ...] | None = None) -> Choosing:
        """The answers behind a prompt; `prior` are the ids of an empty one. Raises ParameterError, PromptError."""
        question = EncodedQuestion.encode(self._tokenizer, encode, answers)
        if prior == ():
            raise ParameterError("--prior needs something before the answers, and the tokenizer adds no start token")
        behind = self._logprobs(question)
        before = None if prior is None else self._logprobs(replace(question, context=prior))
        return weigh(self._tokenizer, answers, question, behind, before)

    def _logprobs(self, question: EncodedQuestion) -> list[Logprobs]:
        """Of each token of each answer."""
        engine, context, answers = self._engine, question.context, question.answers
        longest = len(context) + max(map(len, answers))
        if longest - 1 > engine.limit:
            raise PromptError(f"{longest:,} tokens of prompt and answer do not fit in a context of {engine.limit:,}")
        cache, logits = self._prefill(context, longest)
        raw = engine.measure(logits, 1)
        first = raw.logprobs(np.array([ids[0] for ids in answers])).tolist()
        if question.tail:
            starting = np.logaddexp.reduce(raw.logprobs(np.array(self._tokens_with(question.tail))))
            first = [logprob - float(starting) for logprob in first]
        logprobs = [[logprob] for logprob in first]
        for rows in self._batches(answers, max(1, min(MOST_ROWS, COPIES // cache.rows[0].nbytes_of_copy))):
            cache.select([0] * (1 + len(rows)))  # the first stays as it is
            passed = engine.forward([(), *(answers[row][:-1] for row in rows)], cache, last=None)
            for row, after in zip(rows, passed[1:], strict=True):
                logprobs[row] += engine.measure_rows(after, np.array(answers[row][1:])).logprobs.tolist()
            cache.select([0])
        return logprobs

    def _prefill(self, context: tuple[int, ...], longest: int) -> tuple[KVCache, Logits]:
        """The cache of the context alone, and the logits behind it."""
        cache = self._cache
        if cache is None or not cache.serves(longest):
            cache = self._engine.new_cache(planned_length=longest)
        self._cache = None  # a pass that fails leaves none
        known = cache.keep_prefix(0, context[:-1])
        for start in range(known, len(context), self._chunk):
            part = context[start : start + self._chunk]
            (logits,) = self._engine.forward([part], cache, last=int(start + len(part) == len(context)))
        self._cache = cache
        return cache, logits[-1]

    def _batches(self, answers: Sequence[Sequence[int]], most_rows: int) -> Iterator[list[int]]:
        """Answers of more than one token, as many at once as there is room for."""
        most = LOGITS // (4 * self._engine.vocab_size)
        batch: list[int] = []
        for row, ids in enumerate(answers):
            if len(ids) < 2:
                continue
            if batch and (len(batch) == most_rows or sum(len(answers[other]) for other in batch) + len(ids) > most):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _tokens_with(self, tail: bytes) -> list[int]:
        if tail not in self._starting:
            ids = range(min(self._tokenizer.vocab_size, self._engine.vocab_size))
            self._starting[tail] = [token_id for token_id in ids if self._tokenizer.piece(token_id).startswith(tail)]
        return self._starting[tail]


def weigh(
    tokenizer: Pieces,
    texts: Sequence[str],
    question: EncodedQuestion,
    behind: Sequence[Logprobs],
    before: Sequence[Logprobs] | None,
) -> Choosing:
    """The log-probabilities of tokens as answers beside each other."""
    joint = [math.fsum(logprobs) for logprobs in behind]
    means = [total / len(logprobs) for total, logprobs in zip(joint, behind, strict=True)]
    own = without_longer(joint, question.answers)
    prior = None if before is None else [math.fsum(logprobs) for logprobs in before]
    weights = own
    if prior is not None:
        weights = [log - other for log, other in zip(own, without_longer(prior, question.answers), strict=True)]
    answers = tuple(
        Answer(
            text=text,
            prob=prob,
            logprob=total,
            mean_logprob=mean,
            mean_prob=mean_prob,
            prior_logprob=None if prior is None else prior[number],
            tokens=tuple(
                AnswerToken(token_id, tokenizer.piece(token_id), logprob)
                for token_id, logprob in zip(question.answers[number], behind[number], strict=True)
            ),
        )
        for number, (text, prob, total, mean, mean_prob) in enumerate(
            zip(texts, shares(weights), joint, means, shares(means), strict=True)
        )
    )
    outside = max(0.0, 1 - math.fsum(map(math.exp, own)))
    return Choosing(answers, outside, len(question.context), tail=question.tail, apart=question.apart)


def without_longer(joint: Sequence[float], answers: Sequence[Sequence[int]]) -> list[float]:
    """The logarithm of each probability without that of the answers that go on from it: no text is counted twice.

    What is left is minus infinity where the longer ones leave nothing.
    """
    own = list(joint)
    for number, ids in sorted(enumerate(answers), key=lambda item: -len(item[1])):
        longer = [
            own[other]
            for other, more in enumerate(answers)
            if len(more) > len(ids) and more[: len(ids)] == ids and own[other] > -math.inf
        ]
        if longer:
            taken = math.fsum(math.exp(min(0.0, log - joint[number])) for log in longer)
            own[number] = joint[number] + math.log1p(-taken) if taken < 1 else -math.inf
    return own


def shares(logs: Sequence[float]) -> list[float]:
    """Softmax; the same for all where none is possible."""
    top = max(logs)
    if top == -math.inf:
        return [1 / len(logs)] * len(logs)
    weights = [math.exp(log - top) for log in logs]
    return [weight / math.fsum(weights) for weight in weights]


def mean_of(orders: Sequence[Choosing]) -> Choosing:
    """The same answers behind several prompts: means of the probabilities. Tokens are those of the first prompt."""
    first = orders[0]
    answers = tuple(
        replace(
            answer,
            prob=math.fsum(order.answers[number].prob for order in orders) / len(orders),
            mean_prob=math.fsum(order.answers[number].mean_prob for order in orders) / len(orders),
            logprob=log_mean([order.answers[number].logprob for order in orders]),
            mean_logprob=math.fsum(order.answers[number].mean_logprob for order in orders) / len(orders),
        )
        for number, answer in enumerate(first.answers)
    )
    outside = math.fsum(order.outside for order in orders) / len(orders)
    return replace(first, answers=answers, outside=outside, orders=len(orders))


def log_mean(logs: Sequence[float]) -> float:
    """The logarithm of the mean of what these are the logarithms of."""
    return float(np.logaddexp.reduce(np.array(logs))) - math.log(len(logs))

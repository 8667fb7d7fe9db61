"""How probable a given text is: raw log-probability, rank and entropy of every token, window by window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tokenglass.model.engine.engine import Engine, Logits, check_ids
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Candidate, Choice
from tokenglass.model.text.tokenizer import Tokenizer

LOGITS = 32 * 2**20  # bytes of them that are held at once, whatever the length of the text
LEAST_WINDOW = 2  # a token and what was before it


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens from `first` up to `end` are predicted by what stands before them, from `start` on."""

    start: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class GivenText:
    """A text as token ids, behind the start tokens that its tokenizer adds."""

    text: str
    token_ids: tuple[int, ...]
    offsets: Sequence[int]  # the character of the text that each token begins with
    added: int  # start tokens, which are no part of the text

    @staticmethod
    def encode(tokenizer: Tokenizer, text: str) -> GivenText:
        """Raises PromptError, TokenizerError."""
        token_ids, offsets = tokenizer.encode_offsets(text)
        start = tokenizer.start_ids
        added = 0 if token_ids[: len(start)] == start else len(start)
        return GivenText(text, (*start[:added], *token_ids), (*[0] * added, *offsets), added)

    @property
    def first_scored(self) -> int:
        """The first token of the text that something stands before; the number of tokens where there is none."""
        return min(max(1, self.added), len(self.token_ids))

    def span(self, position: int) -> str:
        """What one token says of the text: all but one of the tokens that share a character say nothing."""
        end = self.offsets[position + 1] if position + 1 < len(self.offsets) else len(self.text)
        return self.text[self.offsets[position] : end]


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over the tokens of a text, or of several. None is what nothing was scored for."""

    tokens: int = 0
    scored: int = 0  # of them: all but a first token with nothing before it
    nbytes: int = 0  # of the scored tokens' text, in UTF-8
    bits: float = 0.0  # minus the sum of the base-2 log-probabilities

    @property
    def bits_per_token(self) -> float | None:
        return self.bits / self.scored if self.scored else None

    @property
    def bits_per_byte(self) -> float | None:
        return self.bits / self.nbytes if self.nbytes else None

    @property
    def perplexity(self) -> float | None:
        """2 to the bits per token (Jelinek et al. 1977)."""
        bits = self.bits_per_token
        return None if bits is None else 2.0**bits if bits < 1000 else math.inf

    def plus(self, other: Score) -> Score:
        return Score(
            self.tokens + other.tokens,
            self.scored + other.scored,
            self.nbytes + other.nbytes,
            self.bits + other.bits,
        )


@dataclass(slots=True)
class Tally:
    """The score of a text while its tokens pass by."""

    text: GivenText
    score: Score = Score()

    def watch(self, choices: Iterable[Choice]) -> Iterator[Choice]:
        """The same choices."""
        text, bits, scored = self.text, 0.0, 0
        for choice in choices:
            if choice.logprob is not None and choice.position >= text.first_scored:
                bits += surprise(choice.logprob)
                scored += 1
            yield choice
        first = text.first_scored
        rest = text.text[text.offsets[first] :] if first < len(text.offsets) else ""
        self.score = Score(len(text.token_ids) - text.added, scored, len(rest.encode()), bits)


def score_of(text: GivenText, choices: Iterable[Choice]) -> Score:
    """The sums over all of a text's tokens."""
    tally = Tally(text)
    for _ in tally.watch(choices):
        pass
    return tally.score


def surprise(logprob: float) -> float:
    """Bits that a token of this log-probability takes (Shannon 1948); 0, never minus 0, for a certain one."""
    return max(0.0, -logprob / math.log(2))


def windows(length: int, size: int, stride: int) -> Iterator[Window]:
    """Windows of `size` tokens that begin every `stride` tokens; each token but the first is predicted in one of them.

    So a token has at least `size - stride` tokens before it, where the text has them (the sliding window of the
    transformers documentation, "Perplexity of fixed-length models").
    """
    window = Window(0, 1, min(size, length))
    while window.first < window.end:
        yield window
        start = window.start + stride
        window = Window(start, window.end, min(start + size, length))


def check_windows(size: int | None, stride: int | None, limit: int) -> tuple[int, int]:
    """The size of a window (None: the context) and its stride (None: half of that). Raises ParameterError."""
    size = limit if size is None else size
    if not LEAST_WINDOW <= size <= limit:
        raise ParameterError(f"--window {size:,} does not fit; give {LEAST_WINDOW} to {limit:,}, the model's context")
    stride = size // 2 if stride is None else stride
    if not 0 < stride < size:
        raise ParameterError(f"--stride {stride:,} does not fit a window of {size:,}; give 1 to {size - 1:,}")
    return size, stride


def score_tokens(
    engine: Engine,
    tokenizer: Tokenizer,
    token_ids: Sequence[int],
    *,
    window: int | None = None,
    stride: int | None = None,
    top: int = 0,
    chunk: int = 256,
) -> Iterator[Choice]:
    """Every token as a choice that was given, with the `top` most probable ones beside it.

    The first has nothing before it, so that its numbers are None. No more than `chunk` positions are computed at once,
    nor more logits held than LOGITS. Raises ParameterError, PromptError, EngineError.
    """
    size, stride = check_windows(window, stride, engine.limit)
    if not token_ids:
        return
    first = token_ids[0]
    check_ids(token_ids, engine.vocab_size)
    yield Choice(0, first, tokenizer.piece(first), None, None, None, None, None, status="given")
    most = max(1, min(chunk, LOGITS // (4 * engine.vocab_size)))
    for position, rows in logits_of_tokens(engine, token_ids, size, stride, most, chunk):
        yield from given_choices(engine, tokenizer, rows, position, token_ids[position:][: len(rows)], top)


def logits_of_tokens(
    engine: Engine, token_ids: Sequence[int], size: int, stride: int, most: int, chunk: int = 256
) -> Iterator[tuple[int, Logits]]:
    """The logits (at most `most`, vocab) that predict the tokens from a position on, window by window from the second
    token to the last. Raises PromptError, EngineError."""
    check_ids(token_ids, engine.vocab_size)
    for span in windows(len(token_ids), size, stride):
        cache = engine.new_cache(planned_length=span.end - span.start)
        for start in range(span.start, span.first - 1, chunk):  # what is only to be seen needs no logits
            engine.forward([token_ids[start : min(start + chunk, span.first - 1)]], cache, last=0)
        for start in range(span.first - 1, span.end - 1, most):
            seen = token_ids[start : min(start + most, span.end - 1)]
            (rows,) = engine.forward([seen], cache, last=None)
            yield start + 1, rows


def given_choices(
    engine: Engine, tokenizer: Tokenizer, rows: Logits, position: int, token_ids: Sequence[int], top: int
) -> Iterator[Choice]:
    """The tokens from `position` on, each as its row of logits (tokens, vocab) has it."""
    numbers = engine.measure_rows(rows, np.asarray(token_ids))
    columns = (numbers.logprobs.tolist(), numbers.ranks.tolist(), numbers.entropies.tolist())
    for row, (token_id, logprob, rank, entropy) in enumerate(zip(token_ids, *columns, strict=True)):
        yield Choice(
            position + row,
            token_id,
            tokenizer.piece(token_id),
            logprob,
            prob=None,
            rank=rank,
            entropy=entropy,
            draw=None,
            candidates=most_probable(engine, tokenizer, rows[row], top) if top else (),
            status="given",
        )


def most_probable(engine: Engine, tokenizer: Tokenizer, logits: Logits, top: int) -> tuple[Candidate, ...]:
    raw = engine.measure(logits, top)
    token_ids = raw.head.token_ids[:top]
    pairs = zip(token_ids.tolist(), raw.logprobs(token_ids).tolist(), strict=True)
    return tuple(Candidate(token_id, tokenizer.piece(token_id), logprob, None) for token_id, logprob in pairs)

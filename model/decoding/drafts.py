"""Guesses of the next tokens that cost less than the model: what a verifying pass may accept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.ngrams import NgramIndex
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.engine.engine import Logits
from tokenglass.model.errors import NothingPossible, ParameterError


@dataclass(frozen=True, slots=True)
class Draft:
    """Guessed ids, and the positions that were computed for them (0: no pass of a model)."""

    token_ids: tuple[int, ...]
    num_input_tokens: int = 0


class Drafter(Protocol):
    def draft(self, sequence: Sequence, count: int) -> Draft:
        """At most `count` guesses of what follows the sequence."""


class NgramDrafter:
    """What followed the last tokens when they came before (prompt lookup, Saxena 2023; Yang et al. 2023, arXiv
    2304.04487): the longest run of at most `longest` tokens, its latest place."""

    def __init__(self, longest: int = 4) -> None:
        self._index = NgramIndex(longest)

    def draft(self, sequence: Sequence, count: int) -> Draft:
        token_ids = sequence.token_ids
        self._index.follow(token_ids)
        start = self._index.latest(token_ids)
        return Draft(tuple(token_ids[start : start + count]))


class ParallelDrafter:
    """The model's own guess of a whole block, from one pass over masks (Set Block Decoding, arXiv 2509.04185)."""

    def __init__(self, job: Job):
        """Guesses over the cache of the job. Raises ParameterError for a model without a mask token."""
        if job.mask_id is None:
            raise ParameterError("this checkpoint has no mask token to draft with; try --draft ngram")
        if job.cache is None:
            raise ParameterError("guesses are made over the cache; leave out --no-cache")
        self._engine = job.engine
        self._cache = job.cache
        self._mask_id = job.mask_id

    def draft(self, sequence: Sequence, count: int) -> Draft:
        done = self._cache.lengths[0]
        inputs = [*sequence.token_ids[done:], *[self._mask_id] * (count - 1)]
        logits = self._engine.forward([inputs], self._cache, last=count, block=count)
        self._cache.truncate(0, done)
        guesses: list[int] = []
        for row in logits[0]:
            if not guess(sequence, row, guesses):
                break
        return Draft(tuple(guesses), len(inputs))


class ModelDrafter:
    """A smaller model with the same tokenizer writes on (Leviathan et al. 2023, arXiv 2211.17192).

    It draws with the numbers that the sequence will draw with, so that equal distributions give equal tokens. Where
    the models have unequal rows for one tokenizer, only ids that both have are guessed, and none behind others.
    """

    def __init__(self, job: Job):
        """Raises ParameterError for a job without a draft model, or a prompt beyond its context."""
        engine = job.draft_engine
        if engine is None:
            raise ParameterError("it needs a smaller model with the same tokenizer: --draft-model MODEL")
        if len(job.request.prompt_ids) >= engine.limit:
            raise ParameterError(f"the draft model's context holds {engine.limit:,} tokens, less than the prompt")
        self._engine = engine
        self._vocab_size = job.engine.vocab_size
        self._cache = engine.new_cache()

    def draft(self, sequence: Sequence, count: int) -> Draft:
        count = min(count, self._engine.limit - len(sequence.token_ids) - 1)
        if count < 1 or max(sequence.token_ids) >= self._engine.vocab_size:
            return Draft(())
        length = self._cache.keep_prefix(0, sequence.token_ids[:-1])
        inputs, computed, guesses = sequence.token_ids[length:], 0, list[int]()
        while len(guesses) < count:
            computed += len(inputs)
            logits = self._engine.forward([inputs], self._cache)
            if not guess(sequence, logits[0][-1, : self._vocab_size], guesses):
                break
            inputs = guesses[-1:]
        return Draft(tuple(guesses), computed)


def guess(sequence: Sequence, logits: Logits, guesses: list[int]) -> bool:
    """Add what the sampler would take from these logits behind the guesses; whether there was something."""
    try:
        choice = sequence.choose(logits, ahead=guesses)
    except NothingPossible:
        return False
    if choice.token_id is None:
        return False
    guesses.append(choice.token_id)
    return True


@dataclass(frozen=True, slots=True)
class TextDrafter:
    """The tokens of a text that is expected again, behind the prompt, for as long as they come."""

    token_ids: tuple[int, ...]
    prompt_length: int

    def draft(self, sequence: Sequence, count: int) -> Draft:
        done = sequence.token_ids[self.prompt_length :]
        is_expected = tuple(done) == self.token_ids[: len(done)]
        return Draft(self.token_ids[len(done) : len(done) + count] if is_expected else ())

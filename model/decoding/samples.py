"""Several texts from one prompt, drawn side by side: one prefill, then a row of the cache for each."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tokenglass.model.decoding.guidance import Negative, room
from tokenglass.model.decoding.recorder import Interrupt, Recorder, record
from tokenglass.model.decoding.request import Request, check_length
from tokenglass.model.decoding.sequence import Decision, Sequence
from tokenglass.model.decoding.sequences import Sequences
from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Phase, Record, Step
from tokenglass.model.text.tokenizer import Tokenizer


def decode_samples(
    engine: Engine, tokenizer: Tokenizer, request: Request, interrupt: Interrupt, count: int
) -> Iterator[Record]:
    """Prefill the prompt once, then decode `count` texts together; sample k is what its derived seed gives alone.

    Yields a Step per sample and forward pass and a Finish per sample, when it ends. What the samples share is counted
    at sample 0: the others have it as `parent` in their first step, which computes nothing. Raises PromptError and
    ParameterError before the first step; an error in a later pass yields a Finish with reason "error" for every open
    sample first.
    """
    check_samples(request, count)
    check_length(request.prompt_ids, engine.limit)
    limit = room(engine, request)
    sequences = [
        Sequence(
            tokenizer,
            request,
            limit,
            number=number,
            seed=seed,
            vocab_size=engine.vocab_size,
            measure=engine.measure,
        )
        for number, seed in enumerate(derived_seeds(request.seed, count))
    ]
    batch = Batch(engine, request, sequences)
    yield from record(Sequences(sequences), batch.decode_once, request, interrupt)


def derived_seed(seed: int, number: int) -> int:
    """The seed of sample `number`, 32 bits; that of sample 0 is the run's own."""
    if number == 0:
        return seed
    digest = hashlib.blake2b(struct.pack("<QQ", seed, number), digest_size=4, person=b"tokenglass seed").digest()
    return int.from_bytes(digest, "little")


def derived_seeds(seed: int, count: int) -> tuple[int, ...]:
    """The seeds of all samples."""
    return tuple(derived_seed(seed, number) for number in range(count))


def check_samples(request: Request, count: int) -> None:
    """Raises ParameterError where several samples make no sense."""
    if count < 1:
        raise ParameterError(f"num_samples is {count}; expected at least 1")
    if count > 1 and request.sampling.is_greedy:
        raise ParameterError("several samples at temperature 0 are one text; raise the temperature, or try --beams")
    if not request.use_cache:
        raise ParameterError("several samples share a prefill in the cache; leave out one of the two")


@dataclass(slots=True)
class Row:
    """A sequence in its row of the cache."""

    sequence: Sequence
    negative: Negative | None = None


class Batch:
    """The samples that are open, each with its row of the cache; until the prompt is read there is the first alone.

    A pass computes as many positions in every row. A row with more to compute than the others, such as tokens that a
    constraint forced, catches up while they go on.
    """

    def __init__(self, engine: Engine, request: Request, sequences: list[Sequence]):
        self._engine = engine
        self._request = request
        self._cache = engine.new_cache(planned_length=request.planned_length(engine.limit))
        self._rows = [Row(sequences[0], Negative(engine, request) if request.negative_ids else None)]
        self._waiting = sequences[1:]

    def decode_once(self, recorder: Recorder) -> Iterator[Step]:
        """One forward pass and what each sample makes of it."""
        self._free_rows()
        rewinds = [row.sequence.pop_rewind() for row in self._rows]
        for place, row in enumerate(self._rows):
            self._cache.keep_prefix(place, row.sequence.token_ids[:-1])
        pending = [row.sequence.token_ids[done:] for row, done in zip(self._rows, self._cache.lengths, strict=True)]
        count = min(self._request.prefill_chunk, *map(len, pending))
        logits = self._engine.forward([token_ids[:count] for token_ids in pending], self._cache)[:, -1]
        branches = self._waiting and self._cache.lengths[0] == len(self._request.prompt_ids)
        if branches:
            self._branch()
            logits, rewinds = logits.repeat(len(self._rows), axis=0), [None] * len(self._rows)
        phases: list[Phase] = ["decode" if row.sequence.has_begun else "prefill" for row in self._rows]
        decisions = [self._decide(place, logits[place]) for place in range(len(self._rows))]
        usages = [self._cache.usage(place) for place in range(len(self._rows))]
        for place, row in enumerate(self._rows):
            is_new = bool(branches) and place > 0
            yield recorder.step(
                phases[place],
                0 if is_new else count,
                usages[place],
                decisions[place].choices,
                decisions[place].text,
                sequence=row.sequence.number,
                parent=0 if is_new else None,
                rewound_to=rewinds[place],
            )

    def _decide(self, place: int, logits: Logits) -> Decision:
        """What comes next in a row, if all of its text has been computed."""
        sequence, negative = self._rows[place].sequence, self._rows[place].negative
        if self._cache.lengths[place] < len(sequence.token_ids):
            return Decision((), "")
        return sequence.decide(logits, None if negative is None else negative.logits(sequence))

    def _free_rows(self) -> None:
        """Only rows whose samples are open stay."""
        places = [place for place, row in enumerate(self._rows) if row.sequence.reason is None]
        if len(places) < len(self._rows):
            self._cache.select(places)
            self._rows = [self._rows[place] for place in places]

    def _branch(self) -> None:
        """Give every sample the row that read the prompt."""
        (first,) = self._rows
        if first.negative is not None:
            first.negative.logits(first.sequence)
        forks = [Row(sequence, first.negative and first.negative.fork()) for sequence in self._waiting]
        self._rows, self._waiting = [first, *forks], []
        self._cache.select([0] * len(self._rows))

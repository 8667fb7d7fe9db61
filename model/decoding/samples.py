"""Several texts from one prompt, drawn side by side: one prefill, then a row of the cache for each."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from tokenglass.model.decoding.autoregressive import next_inputs
from tokenglass.model.decoding.guidance import Negative
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.recorder import Recorder, record
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.sequence import Decision, Sequence
from tokenglass.model.decoding.sequences import Sequences
from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Phase, Record, Step


def decode_samples(job: Job, count: int) -> Iterator[Record]:
    """Prefill the prompt once, then decode `count` texts together; sample k is what its derived seed gives alone.

    A Step per sample and forward pass and a Finish per sample, when it ends. What the samples share is counted at
    sample 0: the others have it as `parent` in their first step, which computes nothing. Raises PromptError and
    ParameterError; an error in a later pass comes behind a Finish with reason "error" for every open sample.
    """
    check_samples(job.request, count)
    first = job.new_sequence()
    seeds = derived_seeds(job.request.seed, count)
    sequences = [first, *(first.fork(number, seeds[number]) for number in range(1, count))]
    batch = Batch(job.engine, job.request, sequences)
    return record(Sequences(sequences), batch.decode_once, job.request, job.interrupt)


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


class Batch:
    """The samples that are open, each with its row of the cache; until the prompt is read there is the first alone.

    A pass computes of each row what it lacks: the token that was drawn last, and those that a constraint forced.
    """

    def __init__(self, engine: Engine, request: Request, sequences: list[Sequence]):
        self._engine = engine
        self._request = request
        self._cache = engine.new_cache(planned_length=request.planned_length(engine.limit))
        self._negative = Negative(engine, request) if request.negative_ids else None
        self._rows = sequences[:1]
        self._waiting = sequences[1:]

    def decode_once(self, recorder: Recorder) -> Iterator[Step]:
        """One forward pass and what each sample makes of it."""
        self._free_rows()
        rewinds = [sequence.pop_rewind() for sequence in self._rows]
        inputs = [
            next_inputs(sequence.token_ids, self._cache, self._request.prefill_chunk, row)
            for row, sequence in enumerate(self._rows)
        ]
        logits = [part[-1] for part in self._engine.forward(inputs, self._cache)]
        negatives = self._read_negatives()
        branches = bool(self._waiting) and self._cache.lengths[0] == len(self._request.prompt_ids)
        if branches:
            count = self._branch()
            logits, negatives, rewinds = logits * count, negatives * count, [None] * count
        phases: list[Phase] = ["decode" if sequence.has_begun else "prefill" for sequence in self._rows]
        decisions = [self._decide(row, logits[row], negatives[row]) for row in range(len(self._rows))]
        usages = [self._cache.usage(row) for row in range(len(self._rows))]
        for row, sequence in enumerate(self._rows):
            is_new = branches and row > 0
            yield recorder.step(
                phases[row],
                0 if is_new else len(inputs[row]),
                usages[row],
                decisions[row].choices,
                decisions[row].text,
                sequence=sequence.number,
                parent=0 if is_new else None,
                rewound_to=rewinds[row],
            )

    def _read_negatives(self) -> list[Logits | None]:
        """Logits behind the negative prompt for each row, where one of them goes on now."""
        texts = [sequence.token_ids for sequence in self._rows]
        if self._negative is None or not any(self._is_read(row) for row in range(len(self._rows))):
            return [None] * len(texts)
        return [*self._negative.rows(texts)]

    def _is_read(self, row: int) -> bool:
        return self._cache.lengths[row] == len(self._rows[row].token_ids)

    def _decide(self, row: int, logits: Logits, negative: Logits | None) -> Decision:
        """What comes next in a row, if all of its text has been computed."""
        return self._rows[row].decide(logits, negative) if self._is_read(row) else Decision((), "")

    def _free_rows(self) -> None:
        """Only rows whose samples are open stay."""
        rows = [row for row, sequence in enumerate(self._rows) if sequence.reason is None]
        if len(rows) < len(self._rows):
            self._rows = [self._rows[row] for row in rows]
            self._cache.select(rows)
            if self._negative is not None:
                self._negative.select(rows)

    def _branch(self) -> int:
        """Give every sample the row that read the prompt; their number."""
        self._rows, self._waiting = [*self._rows, *self._waiting], []
        self._cache.select([0] * len(self._rows))
        if self._negative is not None:
            self._negative.select([0] * len(self._rows))
        return len(self._rows)

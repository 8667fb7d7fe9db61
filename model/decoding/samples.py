"""Several texts from one prompt, drawn side by side: one prefill, then a row of the cache for each."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from tokenglass.model.decoding.guidance import Negative
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.recorder import Recorder, record
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.rows import NOTHING, Rows
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.decoding.sequences import Sequences
from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Record, Step


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
    samples = Samples(job.engine, job.request, sequences)
    return record(Sequences(sequences), samples.decode_once, job.request, job.interrupt)


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


class Samples:
    """The samples that are open, each with its row of the cache; until the prompt is read there is the first alone."""

    def __init__(self, engine: Engine, request: Request, sequences: list[Sequence]):
        self._request = request
        self._rows = Rows(engine, engine.new_cache(planned_length=request.planned_length(engine.limit)), sequences[:1])
        self._negative = Negative(engine, request) if request.negative_ids else None
        self._waiting = sequences[1:]

    def decode_once(self, recorder: Recorder) -> Iterator[Step]:
        """One forward pass and what each sample makes of it."""
        self._free_rows()
        rows = self._rows
        rewinds = [sequence.pop_rewind() for sequence in rows.sequences]
        inputs = [rows.inputs(row, self._request.prefill_chunk) for row in range(len(rows.sequences))]
        logits = rows.forward(inputs)
        negatives = self._read_negatives()
        count, branches = 1, bool(self._waiting) and rows.is_read(0)
        if branches:
            count = self._branch()
            rewinds, inputs = [None] * count, [*inputs, *[[]] * (count - 1)]
        phases = [rows.phase(row) for row in range(len(rows.sequences))]
        decisions = [
            NOTHING if after is None else sequence.decide(after, negative)
            for sequence, after, negative in zip(
                rows.sequences, rows.choose_or_measure(logits * count), negatives * count, strict=True
            )
        ]
        for row, (phase, decision) in enumerate(zip(phases, decisions, strict=True)):
            parent = 0 if branches and row > 0 else None
            yield rows.step(recorder, row, phase, inputs[row], decision, parent=parent, rewound_to=rewinds[row])

    def _read_negatives(self) -> list[Logits | None]:
        """Logits behind the negative prompt for each row, where one of them goes on now."""
        texts = [sequence.token_ids for sequence in self._rows.sequences]
        if self._negative is None or not any(self._rows.is_read(row) for row in range(len(texts))):
            return [None] * len(texts)
        return [*self._negative.rows(texts)]

    def _free_rows(self) -> None:
        """Only rows whose samples are open stay."""
        sequences = self._rows.sequences
        rows = [row for row, sequence in enumerate(sequences) if sequence.reason is None]
        if len(rows) < len(sequences):
            self._select(rows, [sequences[row] for row in rows])

    def _branch(self) -> int:
        """Give every sample the row that read the prompt; their number."""
        sequences, self._waiting = [*self._rows.sequences, *self._waiting], []
        self._select([0] * len(sequences), sequences)
        return len(sequences)

    def _select(self, rows: list[int], sequences: list[Sequence]) -> None:
        """Go on with these rows of the cache, for these sequences."""
        self._rows.sequences = sequences
        self._rows.cache.select(rows)
        if self._negative is not None:
            self._negative.select(rows)

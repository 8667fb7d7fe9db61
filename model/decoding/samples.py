"""Several texts from one prompt, drawn side by side: one prefill, then a row of the cache for each."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tokenglass.model.decoding.autoregressive import Interrupt, asked_to_stop
from tokenglass.model.decoding.ending import end_always, held_back
from tokenglass.model.decoding.guidance import Negative, room
from tokenglass.model.decoding.request import Request, check_length
from tokenglass.model.decoding.sequence import Decision, Sequence
from tokenglass.model.engine.engine import Engine
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Finish, Phase, Record, Step, Totals
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
    samples = [
        Sample(
            Sequence(
                tokenizer,
                request,
                limit,
                number=number,
                seed=seed,
                vocab_size=engine.vocab_size,
                measure=engine.measure,
            )
        )
        for number, seed in enumerate(derived_seeds(request.seed, count))
    ]
    batch = Batch(engine, request, samples)
    began = time.perf_counter()

    def passes() -> Iterator[Record]:
        while batch.samples:
            reason = asked_to_stop(request, interrupt, time.perf_counter() - began)
            if reason is not None:
                for sample in (*batch.samples, *batch.waiting):
                    sample.sequence.reason = reason
                    yield sample.finish()
                return
            yield from batch.step()
            for sample in batch.samples:
                if sample.sequence.reason is not None:
                    yield sample.finish()
            batch.let_go()

    yield from end_always(passes(), lambda: map(Sample.failure, (*batch.samples, *batch.waiting)))


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
class Sample:
    """One text and what it cost."""

    sequence: Sequence
    negative: Negative | None = None
    totals: Totals = field(default_factory=Totals)

    def finish(self) -> Finish:
        text = self.sequence.flush()
        assert self.sequence.reason is not None
        return Finish(self.sequence.number, self.sequence.reason, text, self.totals)

    def failure(self) -> Finish:
        """Its end where an exception cuts it short."""
        return Finish(self.sequence.number, "error", held_back(self.sequence), self.totals)


class Batch:
    """The samples that are open, each with its row of the cache; until the prompt is read there is the first alone.

    A pass computes as many positions in every row. A row with more to compute than the others, such as tokens that a
    constraint forced, catches up while they go on.
    """

    def __init__(self, engine: Engine, request: Request, samples: list[Sample]):
        self.samples = samples[:1]
        self.waiting = samples[1:]
        self._engine = engine
        self._request = request
        self._cache = engine.new_cache(planned_length=request.planned_length(engine.limit))
        if request.negative_ids:
            samples[0].negative = Negative(engine, request)
        self._forwards = self._steps = 0

    def step(self) -> Iterator[Step]:
        """One forward pass and what each sample makes of it."""
        started = time.perf_counter()
        rewinds = [self._rewound(row) for row in range(len(self.samples))]
        pending = [s.sequence.token_ids[done:] for s, done in zip(self.samples, self._cache.lengths, strict=True)]
        count = min(self._request.prefill_chunk, *map(len, pending))
        logits = self._engine.forward([token_ids[:count] for token_ids in pending], self._cache)[:, -1]
        branched = 0
        if self.waiting and self._cache.lengths[0] == len(self._request.prompt_ids):
            branched = self._branch()
            logits = logits.repeat(len(self.samples), axis=0)
        made = []
        for row, sample in enumerate(self.samples):
            sequence = sample.sequence
            rewound_to = None if branched else rewinds[row]
            phase: Phase = "prefill" if sample.totals.new_tokens == 0 and rewound_to is None else "decode"
            decision = Decision((), "")
            if self._cache.lengths[row] == len(sequence.token_ids):
                beside = None if sample.negative is None else sample.negative.logits(sequence)
                decision = sequence.decide(logits[row], beside)
            made.append((sample, phase, decision, rewound_to, self._cache.usage(row)))
        seconds = time.perf_counter() - started
        for row, (sample, phase, decision, rewound_to, usage) in enumerate(made):
            is_branch = 0 < row < branched
            step = Step(
                index=self._steps,
                forward=self._forwards,
                sequence=sample.sequence.number,
                phase=phase,
                num_input_tokens=0 if is_branch else count,
                choices=decision.choices,
                text=decision.text,
                cache=usage,
                seconds=seconds,
                parent=0 if is_branch else None,
                rewound_to=rewound_to,
            )
            sample.totals = sample.totals.plus(step)
            self._steps += 1
            yield step
        self._forwards += 1

    def let_go(self) -> None:
        """Only rows whose samples are open stay."""
        rows = [row for row, sample in enumerate(self.samples) if sample.sequence.reason is None]
        if rows and len(rows) < len(self.samples):
            self._cache.select(rows)
        self.samples = [self.samples[row] for row in rows]

    def _rewound(self, row: int) -> int | None:
        """Forget what the row's sample took back; the length it was cut to."""
        sequence = self.samples[row].sequence
        rewound_to, sequence.rewound_to = sequence.rewound_to, None
        self._cache.keep_prefix(row, sequence.token_ids[:-1])
        return rewound_to

    def _branch(self) -> int:
        """Give every sample the row that read the prompt; the number of samples."""
        first = self.samples[0]
        if first.negative is not None:
            first.negative.logits(first.sequence)
            for sample in self.waiting:
                sample.negative = first.negative.copy()
        self.samples, self.waiting = [first, *self.waiting], []
        self._cache.select([0] * len(self.samples))
        return len(self.samples)

"""One token at a time, each conditioned on all before it."""

from __future__ import annotations

from collections.abc import Iterator

from tokenglass.model.decoding.guidance import Negative
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.recorder import Recorder, record
from tokenglass.model.decoding.sequence import Decision
from tokenglass.model.decoding.sequences import Sequences
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.records.steps import Phase, Record, Step


def decode(job: Job) -> Iterator[Record]:
    """Prefill the prompt in chunks, then decode until an end token, max_new_tokens, or the context's limit.

    One Step per forward pass and a Finish at the end. Raises PromptError; an error in a later pass comes behind a
    Finish with reason "error".
    """
    sequence, job = job.new_sequence(), job.with_cache()
    engine, request, cache = job.engine, job.request, job.cache
    negative = Negative(engine, request) if request.negative_ids else None

    def decode_once(recorder: Recorder) -> Iterator[Step]:
        rewound_to = sequence.pop_rewind()
        inputs = next_inputs(sequence.token_ids, cache, request.prefill_chunk)
        logits = engine.forward([inputs], cache, planned_length=job.planned_length)
        phase: Phase = "decode" if sequence.has_begun else "prefill"
        decision = Decision((), "")
        if cache is None or cache.lengths[0] == len(sequence.token_ids):
            beside = None if negative is None else negative.logits(sequence)
            decision = sequence.decide(logits[0][-1], beside)
        usage = None if cache is None else cache.usage()
        yield recorder.step(phase, len(inputs), usage, decision.choices, decision.text, rewound_to=rewound_to)

    return record(Sequences([sequence]), decode_once, request, job.interrupt)


def next_inputs(token_ids: list[int], cache: KVCache | None, chunk: int, row: int = 0) -> list[int]:
    """The ids to compute next: what the row does not hold yet, at most a chunk; without a cache, all of them.

    The last id is always computed: its logits are the next token's. A row that holds anything else is cut back.
    """
    if cache is None:
        return token_ids[:]
    done = cache.keep_prefix(row, token_ids[:-1])
    return token_ids[done : done + chunk]

"""One token at a time, each conditioned on all before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tokenglass.model.decoding.ending import end_always, failure
from tokenglass.model.decoding.guidance import Negative, room
from tokenglass.model.decoding.recorder import Recorder
from tokenglass.model.decoding.request import Request, check_length
from tokenglass.model.decoding.sequence import Decision, Sequence
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Engine
from tokenglass.model.records.steps import Phase, Reason, Record
from tokenglass.model.text.tokenizer import Tokenizer


class Interrupt(Protocol):
    """A flag that is read between steps, such as a threading.Event."""

    def is_set(self) -> bool: ...


def decode(
    engine: Engine, tokenizer: Tokenizer, request: Request, interrupt: Interrupt, cache: KVCache | None = None
) -> Iterator[Record]:
    """Prefill the prompt in chunks, then decode until an end token, max_new_tokens, or the context's limit.

    A `cache` is continued from what its row has in common with the prompt (chat keeps it between turns).
    Yields one Step per forward pass and a Finish at the end. Raises PromptError before the first step; an error in
    a later pass yields a Finish with reason "error" first.
    """
    check_length(request.prompt_ids, engine.limit)
    sequence = Sequence(tokenizer, request, room(engine, request), vocab_size=engine.vocab_size, measure=engine.measure)
    planned_length = request.planned_length(engine.limit)
    if cache is None and request.use_cache:
        cache = engine.new_cache(planned_length=planned_length)
    negative = Negative(engine, request) if request.negative_ids else None
    recorder = Recorder()

    def passes() -> Iterator[Record]:
        while sequence.reason is None:
            sequence.reason = asked_to_stop(request, interrupt, recorder.start())
            if sequence.reason is not None:
                break
            rewound_to, sequence.rewound_to = sequence.rewound_to, None
            inputs = next_inputs(sequence.token_ids, cache, request.prefill_chunk)
            logits = engine.forward([inputs], cache, planned_length=planned_length)
            phase: Phase = "decode" if sequence.has_begun else "prefill"
            decision = Decision((), "")
            if cache is None or cache.lengths[0] == len(sequence.token_ids):
                beside = None if negative is None else negative.logits(sequence)
                decision = sequence.decide(logits[0, -1], beside)
            yield recorder.step(phase, len(inputs), cache, decision.choices, decision.text, rewound_to=rewound_to)
        text = sequence.flush()
        yield recorder.finish(sequence.reason, text)

    yield from end_always(passes(), lambda: failure(sequence, recorder))


def asked_to_stop(request: Request, interrupt: Interrupt, seconds: float) -> Reason | None:
    """Why a run ends before its next pass."""
    if interrupt.is_set():
        return "interrupt"
    return "time" if request.max_seconds is not None and seconds >= request.max_seconds else None


def next_inputs(token_ids: list[int], cache: KVCache | None, chunk: int) -> list[int]:
    """The ids to compute next: what the cache does not hold yet, at most a chunk; without a cache, all of them.

    The last id is always computed: its logits are the next token's. A cache that holds anything else is cut back.
    """
    if cache is None:
        return token_ids[:]
    done = cache.keep_prefix(0, token_ids[:-1])
    return token_ids[done : done + chunk]

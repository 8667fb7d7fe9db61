"""One token at a time, each conditioned on all before it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from model.decoding.request import Request, check_length
from model.engine import Engine
from model.errors import TokenglassError
from model.kv_cache import KVCache
from model.sampling.sampler import Sampler
from model.steps import Choice, Finish, Phase, Reason, Record, Step, Totals
from model.tokenizer import StreamingDetokenizer, Tokenizer


class Interrupt(Protocol):
    """A flag that is read between steps, such as a threading.Event."""

    def is_set(self) -> bool: ...


def decode(
    engine: Engine, tokenizer: Tokenizer, request: Request, interrupt: Interrupt, cache: KVCache | None = None
) -> Iterator[Record]:
    """Prefill the prompt in chunks, then decode until an end token, max_new_tokens, or the context's limit.

    A `cache` that already holds the first positions of the prompt is continued (chat keeps it between turns).
    Yields one Step per forward pass and a Finish at the end. Raises PromptError before the first step; an error in
    a later pass yields a Finish with reason "error" first.
    """
    check_length(request.prompt_ids, engine.limit)
    sampler = Sampler(request.sampling, request.seed, tokenizer.piece, request.top)
    detokenizer = StreamingDetokenizer(tokenizer, request.prompt_ids)
    planned_length = request.planned_length(engine.limit)
    if cache is None and request.use_cache:
        cache = engine.new_cache(planned_length=planned_length)
    token_ids = list(request.prompt_ids)
    totals = Totals()
    reason: Reason | None = None
    try:
        while reason is None:
            if interrupt.is_set():
                reason = "interrupt"
                break
            started = time.perf_counter()
            inputs = next_inputs(token_ids, cache, request.prefill_chunk)
            logits = engine.forward(torch.tensor([inputs]), cache, planned_length=planned_length)
            choices: tuple[Choice, ...] = ()
            text = ""
            phase: Phase = "prefill" if totals.new_tokens == 0 else "decode"
            if cache is None or cache.lengths[0] == len(token_ids):
                choice = sampler.choose(last_row(logits), position=len(token_ids))
                choices = (choice,)
                assert choice.token_id is not None
                reason = reason_to_stop(choice.token_id, len(token_ids) + 1, request, engine.limit)
                if reason != "eos":
                    text = detokenizer.add(choice.token_id)
                token_ids.append(choice.token_id)
            step = Step(
                index=totals.forwards,
                forward=totals.forwards,
                sequence=0,
                phase=phase,
                num_input_tokens=len(inputs),
                choices=choices,
                text=text,
                cache=cache.usage() if cache is not None else None,
                seconds=time.perf_counter() - started,
            )
            totals = totals.plus(step)
            yield step
    except TokenglassError:
        yield Finish(0, "error", detokenizer.flush(), totals)
        raise
    yield Finish(0, reason, detokenizer.flush(), totals)


def next_inputs(token_ids: list[int], cache: KVCache | None, chunk: int) -> list[int]:
    """The ids to compute next: what the cache does not hold yet, at most a chunk; without a cache, all of them."""
    if cache is None:
        return token_ids[:]
    done = cache.lengths[0]
    return token_ids[done : done + chunk]


def last_row(logits: Tensor) -> Tensor:
    """(1, 1, vocab) to (vocab,)."""
    return logits[0, -1]


def reason_to_stop(token_id: int, length: int, request: Request, limit: int) -> Reason | None:
    """Why a sequence that has just reached `length` tokens with `token_id` ends here, or None."""
    if token_id in request.eos_token_ids:
        return "eos"
    if length - len(request.prompt_ids) >= request.max_new_tokens:
        return "length"
    return "context" if length >= limit else None

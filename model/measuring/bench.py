"""How fast an engine is on this machine, and how near that is to what its memory allows."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.engine.large_pages import large_block
from tokenglass.model.errors import ParameterError

Kind = Literal["bandwidth", "prefill", "decode", "batch"]
Ids = NDArray[np.int64]


WARM_READS = 16  # until shared caches have found out what is read again and again
READS = 6  # in which they find it out again, and of which the later half counts


@dataclass(frozen=True, slots=True)
class Spread:
    """What several runs gave."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True, slots=True)
class Reading:
    """One thing measured: tokens per second (bandwidth: bytes per second), and where."""

    kind: Kind
    rate: Spread
    context: int = 0  # positions in the cache, or read by a prefill
    rows: int = 1  # sequences at once
    nbytes: int = 0  # of weights and cache that one step must read
    first_token: Spread | None = None  # seconds from an empty cache to the first token, of a prefill
    bandwidth: Spread | None = None  # bytes per second that could be read around each run: machines have neighbours

    @property
    def share(self) -> float | None:
        """Of the steps per second that only reading `nbytes` would allow, run by run; None where that was not read."""
        if self.bandwidth is None:
            return None
        runs = zip(self.rate.values, self.bandwidth.values, strict=True)
        return statistics.median(rate / self.rows * self.nbytes / bandwidth for rate, bandwidth in runs)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    contexts: tuple[int, ...] = (128, 512, 1024)
    rows: tuple[int, ...] = (1, 2, 4, 8, 16)
    tokens: int = 32  # decoded per run
    runs: int = 5

    def within(self, limit: int) -> Plan:
        """The plan as far as a context of `limit` positions holds it. Raises ParameterError where that is nothing."""
        room = limit - self.tokens
        contexts = tuple(dict.fromkeys(min(context, room) for context in self.contexts))
        if room < 1:
            raise ParameterError(f"a context of {limit:,} positions is too short to measure {self.tokens} tokens in")
        return Plan(contexts, self.rows, self.tokens, self.runs)

    @property
    def steps(self) -> int:
        """Readings that `measure` will give."""
        return 1 + 2 * len(self.contexts) + len(self.rows)


class MeasurableEngine(Engine, Protocol):
    """An engine that can also only read memory, and knows what a step reads."""

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that one decode step reads."""

    def read(self, block: NDArray[np.uint8]) -> None:
        """Only read a block."""


def measure(engine: MeasurableEngine, plan: Plan) -> Iterator[Reading]:
    """Readings of the memory, then per context of prefill and decode, then per number of rows at the first context.

    Each is of `plan.runs` runs behind a warm-up. Tokens are the most probable ones; nothing but the engine runs.
    """
    weights = engine.step_bytes
    memory = Memory(engine, weights)
    yield Reading("bandwidth", repeat(plan.runs, memory.bandwidth))
    for context in plan.contexts:
        prompt = prompt_of(engine.vocab_size, 1, context)
        seconds = repeat(plan.runs, partial(prefill_seconds, engine, prompt))
        rate = Spread(tuple(context / second for second in seconds.values))
        yield Reading("prefill", rate, context, nbytes=weights, first_token=seconds)
        yield measure_decode(engine, plan, prompt, weights, memory, "decode")
    for rows in plan.rows:
        yield measure_decode(
            engine, plan, prompt_of(engine.vocab_size, rows, plan.contexts[0]), weights, memory, "batch"
        )


def measure_decode(engine: Engine, plan: Plan, prompt: Ids, weights: int, memory: Memory, kind: Kind) -> Reading:
    """Tokens per second, all rows together, behind a prompt (rows, length) that is in the cache already.

    The memory is read before and after each run.
    """
    rows, context = prompt.shape
    cache, _, token_ids = prefill(engine, prompt)
    cached = sum(cache.usage(row).nbytes_used for row in range(rows))

    def run() -> tuple[float, float]:
        before = memory.bandwidth()
        ids, started = token_ids, time.perf_counter()
        for _ in range(plan.tokens):
            ids = most_probable(engine.forward(ids, cache))
        seconds = time.perf_counter() - started
        for row in range(rows):
            cache.truncate(row, context)
        return rows * plan.tokens / seconds, (before + memory.bandwidth()) / 2

    run()
    rates, bandwidths = zip(*(run() for _ in range(plan.runs)), strict=True)
    return Reading(kind, Spread(rates), context, rows, weights + cached, bandwidth=Spread(bandwidths))


def prefill(engine: Engine, prompt: Ids) -> tuple[KVCache, float, Ids]:
    """A new cache with the prompt (rows, length) in it, the seconds that took, and the next token of each row."""
    started = time.perf_counter()
    cache = engine.new_cache(len(prompt))
    token_ids = most_probable(engine.forward(prompt, cache))
    return cache, time.perf_counter() - started, token_ids


def prefill_seconds(engine: Engine, prompt: Ids) -> float:
    """From an empty cache to the first token."""
    return prefill(engine, prompt)[1]


def most_probable(logits: list[Logits]) -> Ids:
    """Logits of each row (1, vocab) to token ids (rows, 1)."""
    return np.array([row.argmax(-1) for row in logits])


def prompt_of(vocab_size: int, rows: int, length: int) -> Ids:
    """Token ids (rows, length), spread over the vocabulary; what they say does not change how long they take."""
    return (np.arange(rows * length) * 7919 % vocab_size).reshape(rows, length)


def repeat(runs: int, run: Callable[[], float]) -> Spread:
    """What `run` gives, `runs` times behind a warm-up."""
    run()
    return Spread(tuple(run() for _ in range(runs)))


class Memory:
    """A block as large as the weights, for the engine's own threads to read and do nothing else.

    It lies on large pages where there are any; the processor's caches hold it as far as they would hold the weights.
    """

    def __init__(self, engine: MeasurableEngine, nbytes: int):
        nbytes = -(-nbytes // 2**20) * 2**20  # whole tasks of the threads
        block = large_block(nbytes)
        self.block = np.empty(nbytes, np.uint8) if block is None else block
        self.block.fill(1)  # pages that were never written to are all the same one
        self.read = engine.read
        for _ in range(WARM_READS):
            self.read(self.block)

    def bandwidth(self) -> float:
        """Bytes per second, the median of a few reads behind others."""
        seconds = []
        for _ in range(READS):
            started = time.perf_counter()
            self.read(self.block)
            seconds.append(time.perf_counter() - started)
        return self.block.nbytes / statistics.median(seconds[READS // 2 :])


def peak_memory() -> int | None:
    """Most bytes that this process ever held in memory; None where the system does not tell."""
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

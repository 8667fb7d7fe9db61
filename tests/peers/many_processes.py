"""What many processes at once get done together, as a share of what one gets done alone.

    python tests/peers/many_processes.py [MODEL] [--processes 8] [--threads N] [--quantize int8] [--seconds 3]

Each is a process of its own that decodes greedily behind 128 tokens, on as many threads as it takes by itself. Medians
of interleaved runs. Tokens per second of processor time stand beside those by the clock: they tell what waiting costs
where other programs run too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.loaded_model import Quantize
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.bench import most_probable, prefill, prompt_of

CONTEXT, TOKENS = 128, 64  # before the cache is cut back
SHARE = 0.7  # that is asked for


class Work(NamedTuple):
    """Of one process, or of several: tokens, and the seconds of processor time that they took."""

    tokens: int
    seconds: float


def serve(pipe: Connection, model: str | None, quantize: Quantize, threads: int | None) -> None:
    """Decode for as many seconds as are asked for, again and again."""
    loaded = load_model(resolve(model), device="cpu", backend="native", quantize=quantize, threads=threads)
    cache, _, ids = prefill(loaded.engine, prompt_of(loaded.vocab_size, 1, CONTEXT))
    pipe.send(loaded.threads)
    while seconds := pipe.recv():
        tokens, began, end = 0, time.process_time(), time.perf_counter() + seconds
        while time.perf_counter() < end:
            if tokens % TOKENS == 0:
                cache.truncate(0, CONTEXT)
            ids = most_probable(loaded.engine.forward(ids, cache))
            tokens += 1
        pipe.send(Work(tokens, time.process_time() - began))


def ask(pipes: list[Connection], seconds: float) -> Work:
    """What these processes do at once."""
    for pipe in pipes:
        pipe.send(seconds)
    tokens, used = zip(*(pipe.recv() for pipe in pipes), strict=True)
    return Work(sum(tokens), sum(used))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a checkpoint folder or a name; absent, the bundled model")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quantize", default="int8", choices=["none", "int8", "int4"])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(options.processes):
        ours, theirs = context.Pipe()
        arguments = (theirs, options.model, options.quantize, options.threads)
        context.Process(target=serve, args=arguments, daemon=True).start()
        pipes.append(ours)
    threads = {pipe.recv() for pipe in pipes}
    ask(pipes, options.seconds / 4)  # a warm-up
    alone, together = [], []
    for _ in range(options.runs):
        alone.append(ask(pipes[:1], options.seconds))
        together.append(ask(pipes, options.seconds))
    for pipe in pipes:
        pipe.send(0)
    print(f"{'processes':>9} {'tok/s':>8} {'tok/s of processor time':>24}   ({threads.pop()} threads each)")
    rates = []
    for count, works in ((1, alone), (options.processes, together)):
        rate = statistics.median(work.tokens / options.seconds for work in works)
        frugality = statistics.median(work.tokens / work.seconds for work in works)
        rates.append((rate, frugality))
        print(f"{count:>9} {rate:>8,.1f} {frugality:>24,.1f}")
    (one, one_frugal), (many, many_frugal) = rates
    print(
        f"together {many / one:.0%} of one by the clock (asked for: {SHARE:.0%}), "
        f"{many_frugal / one_frugal:.0%} by processor time"
    )


if __name__ == "__main__":
    main()

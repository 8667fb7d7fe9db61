"""Many prompts at once beside transformers' batched generate and llama.cpp's server with as many slots, greedy.

    python tests/peers/many.py [MODEL] [--gguf DIR] [--prompts 32] [--length 32] [--tokens 64] [--runs 5] [--threads 2]
    python tests/peers/many.py [MODEL] --shared 512 [--tokens 16]

As decode.py does it, with tokens per second of all texts together, the reading of the prompts included. With --shared,
this program alone: prompts that begin with so many tokens in common, and as many that have nothing in common.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from contenders import MAKERS, Arena, contenders, median_and_range, prompt_of
from decode import RIVALS, tell

from tokenglass.model.checkpoint.store import resolve

BATCHING = [who for who, maker in MAKERS.items() if hasattr(maker, "many")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model's name or checkpoint folder; absent, the bundled model")
    parser.add_argument("--gguf", type=Path, help="the folder that gguf_files.py wrote")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--length", type=int, default=32, help="tokens of a prompt")
    parser.add_argument("--shared", type=int, default=0, help="tokens that the prompts begin with in common")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--who", nargs="+", default=BATCHING, choices=BATCHING)
    parser.add_argument("--weights", nargs="+", default=list(RIVALS), choices=list(RIVALS))
    options = parser.parse_args()
    who = ["tokenglass"] if options.shared else options.who
    wanted = {*options.weights, *(RIVALS[weights] for weights in options.weights)}
    everybody = contenders(options.model, options.gguf, options.threads, who, options.prompts)
    arena = Arena([contender for contender in everybody if contender.weights in wanted])
    everybody = [contender for contender in everybody if contender.name in arena.ends]
    count, length, runs = options.prompts, options.length, options.runs
    print(f"{count} prompts of {options.shared + length} tokens, {options.tokens} new ones each, {runs} runs")
    own = apart(options.model, count, length)
    if options.shared:
        (common,) = apart(options.model, 1, options.shared)
        alike = arena.rates("many", [[*common, *ids] for ids in own], options.tokens, runs=runs)
        unlike = arena.rates("many", apart(options.model, count, options.shared + length), options.tokens, runs=runs)
        for name in alike:
            ratio = statistics.median(alike[name]) / statistics.median(unlike[name])
            print(f"{name:22} {median_and_range(alike[name])}; nothing in common {median_and_range(unlike[name])}")
            print(f"{name:22} {ratio:.2f} x")
    else:
        tell(everybody, arena.bits, arena.rates("many", own, options.tokens, runs=runs))
    arena.close()


def apart(model: str | None, count: int, length: int) -> list[list[int]]:
    """Prompts of one length that have no beginning in common."""
    ids = prompt_of(resolve(model), length + 7 * count)
    return [[ids[(7 * number + 5 * number * place) % len(ids)] for place in range(length)] for number in range(count)]


if __name__ == "__main__":
    main()

"""What inspection costs, in float32 decode steps of the same model on the same machine.

    python tests/peers/knock_out.py [MODEL] [--positions 128] [--runs 7] [--threads 2]

The knock-out hides every earlier position in turn, in one batch over a shared cache; the lens reads every layer; the
rows of the live view do both for few positions. All run in turn, after a warm-up; medians and their ratios are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.inspection.fork import Fork, ForkView, record
from tokenglass.model.inspection.knock_out import direct_effects
from tokenglass.model.inspection.lens import through_layers
from tokenglass.model.inspection.reading import flow_rows
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model

TEXT = "Once upon a time there was a little fox who lived in the forest. " * 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2", help="a name or a checkpoint folder")
    parser.add_argument("--positions", type=int, default=128)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    loaded = load_model(resolve(options.model), dtype="float32", device="cpu", threads=options.threads)
    ids = list(loaded.tokenizer.encode(TEXT)[: options.positions + 2])
    cache = loaded.engine.new_cache()
    loaded.engine.forward(torch.tensor([ids[:-1]]), cache)
    work = works(loaded, cache, ids)
    timed: dict[str, list[float]] = {name: [] for name in work}
    for number in range(options.runs + 1):
        for name, run in work.items():
            started = time.perf_counter()
            with torch.inference_mode():
                run()
            if number:  # the first is the warm-up
                timed[name].append(time.perf_counter() - started)
    print(f"{loaded.name}, float32, {options.positions} positions, {options.threads} threads, {options.runs} runs each")
    step = statistics.median(timed["decode step"])
    for name, times in timed.items():
        middle = statistics.median(times)
        spread = f"({1000 * min(times):.1f} to {1000 * max(times):.1f})"
        print(f"{name:32} {1000 * middle:8.1f} ms {spread:>20}   {middle / step:5.1f} decode steps")


def works(loaded: LoadedModel, cache: KVCache, ids: list[int]) -> dict[str, Callable[[], object]]:
    """What is timed. `ids` are the text before the choice and the chosen token."""
    model, piece, before, chosen = loaded.engine.model, loaded.tokenizer.piece, ids[:-1], ids[-1]
    last = len(before) - 1

    def step() -> None:
        loaded.engine.forward(torch.tensor([before[-1:]]), cache)
        cache.truncate(0, last + 1)

    def full_lens() -> None:
        positions = torch.tensor([last])
        view = ForkView(Fork(cache, 0, last), positions, torch.ones(1, last + 1, dtype=torch.bool))
        with record(model) as recording:
            model.model(torch.tensor([before[-1:]]), view)
        through_layers(model, recording, chosen, piece)

    return {
        "decode step": step,
        f"knock-out of {last} positions": lambda: direct_effects(model, cache, 0, before, chosen, range(last)),
        "full lens, its own pass included": full_lens,
        "rows of the live view": lambda: flow_rows(model, cache, before, chosen, piece),
    }


if __name__ == "__main__":
    main()

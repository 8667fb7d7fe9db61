"""What a choice costs: raw distribution, chain, draw, rank, entropy and candidates, on a model's own logits.

    python tests/peers/sampler.py [MODEL] [--quantize int8] [--tokens 64] [--runs 9] [--share]

The best of several interleaved runs per token, in processor time of the thread; medians over the tokens are printed.
A full sort and an exponential of the same logits stand beside it. With --share instead: the part of a token's time that
the sampler takes in the loop, its default chain and five candidates recorded, for one text and for eight at once.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from tokenglass.cli.__main__ import ALLOCATIONS
from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.decoding import rows as decoding_rows
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.samples import decode_samples
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Step
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.torch_engine.engine import as_tensor

TEXT = """Once upon a time there was a little fox who lived in the forest. One day the fox went to the river to look
for something to eat, and there it met a bear. The bear was big and brown, and it had a fish. "Good morning, little
fox," said the bear. "Good morning, big bear," said the fox. "What do you have there?" """

MOVED = {
    "repetition_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.1,
    "dry_multiplier": 0.8,
    "no_repeat_ngram_size": 4,
    "logit_bias": (((5, 9), 1.0),),
}
CHAINS = {
    "greedy, top 5": (SamplingParameters(temperature=0.0), 5),
    "default (temperature, top-p), top 5": (SamplingParameters(), 5),
    "temperature 1 alone, top 5": (SamplingParameters(temperature=1.0, top_p=1.0), 5),
    "ten processors, top 10": (SamplingParameters(temperature=0.8, top_k=50, top_p=0.95, min_p=0.02, **MOVED), 10),
    "ten, typical-p for top-k, top 10": (
        SamplingParameters(temperature=0.8, top_k=0, top_p=0.95, min_p=0.02, typical_p=0.9, **MOVED),
        10,
    ),
    "all thirteen, top 10": (
        SamplingParameters(
            temperature=0.8,
            top_k=50,
            top_p=0.95,
            min_p=0.02,
            typical_p=0.9,
            top_n_sigma=3.0,
            xtc_probability=0.5,
            **MOVED,
        ),
        10,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a checkpoint folder or a name; absent, the bundled model")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--share", action="store_true", help="measure the sampler's part of a token in the loop")
    options = parser.parse_args()
    gc.set_threshold(ALLOCATIONS)  # as the program does
    loaded = load_model(resolve(options.model), device="cpu", backend="auto", quantize=options.quantize)
    if options.share:
        for samples in (1, 8):
            print_share(loaded, samples, options.tokens, options.runs)
        return
    piece, measure = loaded.tokenizer.piece, loaded.engine.measure
    rows, token_ids = logits_of(loaded, options.tokens)
    work: dict[str, Callable[[torch.Tensor, Context], object]] = {
        name: Sampler(parameters, piece, top, measure).choose for name, (parameters, top) in CHAINS.items()
    }
    work["(a full sort)"] = lambda row, _: np.argsort(row.double().numpy())
    work["(one exponential)"] = lambda row, _: np.exp(row.double().numpy())
    best = {name: [float("inf")] * len(rows) for name in work}
    for _ in range(options.runs):
        for index, row in enumerate(rows):
            where = Context(token_ids[: len(token_ids) - len(rows) + index + 1], 16, seed=1)
            for name, run in work.items():
                started = time.thread_time()
                run(row, where)
                best[name][index] = min(best[name][index], time.thread_time() - started)
    print(f"vocabulary {len(rows[0]):,}, {len(rows)} tokens after a text of {len(token_ids) - len(rows)}")
    for name, seconds in best.items():
        median, most = statistics.median(seconds) * 1e3, max(seconds) * 1e3
        print(f"{name:38} median {median:6.3f} ms   most {most:6.3f} ms")


def print_share(loaded: LoadedModel, samples: int, tokens: int, runs: int) -> None:
    """The sampler's seconds over those of the whole loop, in which every candidate is read; the first run warms up."""
    request = Request(loaded.tokenizer.encode("Once upon a time"), 1, max_new_tokens=tokens, top=5)
    shares, micros = [], []
    for run in range(runs + 1):
        seconds: list[float] = []
        job = Job(loaded.engine, loaded.tokenizer, request)
        watched = ((Sampler, "choose"), (decoding_rows, "choose_each"), (loaded.engine, "measure_each"))
        with ExitStack() as patches:
            for owner, name in watched:
                patches.enter_context(patch.object(owner, name, timed(getattr(owner, name), seconds)))
            started = time.perf_counter()
            records = decode(job) if samples == 1 else decode_samples(job, samples)
            choices = [choice for record in records if isinstance(record, Step) for choice in record.choices]
            candidates = sum(len(choice.candidates) for choice in choices)
            whole = time.perf_counter() - started
        assert candidates >= 5 * len(choices)
        if run:
            shares.append(sum(seconds) / whole)
            micros.append(whole / len(choices) * 1e6)
    median, low, high = statistics.median(shares), min(shares), max(shares)
    print(
        f"{samples} at once: the sampler takes {median:.1%} of a token ({low:.1%} to {high:.1%}, {runs} runs) "
        f"of {statistics.median(micros):.0f} microseconds"
    )


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same function, which notes how long it takes."""

    def run(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            seconds.append(time.perf_counter() - started)

    return run


def logits_of(loaded: LoadedModel, count: int) -> tuple[list[torch.Tensor], list[int]]:
    """The logits (vocab,) at the last `count` places of a text, and its ids."""
    token_ids = list(loaded.tokenizer.encode(TEXT))
    cache = loaded.engine.new_cache(planned_length=len(token_ids))
    rows = []
    with torch.inference_mode():
        for token_id in token_ids:
            rows.append(as_tensor(loaded.engine.forward(torch.tensor([[token_id]]), cache)[0])[-1].float())
    return rows[-count:], token_ids


if __name__ == "__main__":
    main()

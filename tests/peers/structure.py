"""Ways of decoding on texts of simple structure whose patterns were held out of the training of tale.

    python tests/peers/structure.py [MODEL] [--texts 35] [--rounds 3] [--modes A,B] [--quantize int8] [--threads N]

A text's heading and its first two lines fix all that follows, so every other line is an error. Greedy. Prints a row of
a Markdown table for each mode: tokens per pass, tokens per second (the median of the rounds), lines that are wrong.
"""

from __future__ import annotations

import argparse
import statistics
from itertools import zip_longest

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.decoding.request import Request
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.comparison.modes import NAMES, Variants
from tokenglass.model.measuring.comparison.runs import TimedRuns, interleave
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.weights.recipe.patterns import held_out_pattern_texts

SHOWN_LINES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model's name or checkpoint folder; absent, the bundled model")
    parser.add_argument("--texts", type=int, default=35)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", default=",".join(name for name in NAMES if name != "speculative-model"))
    parser.add_argument("--quantize", default="none", choices=["none", "int8", "int4"])
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    loaded = load_model(resolve(options.model), quantize=options.quantize, backend="auto", threads=options.threads)
    print(f"{loaded.name}, {loaded.dtype}, {loaded.quantize}, {loaded.backend}, {loaded.threads} threads", flush=True)
    print("| simple structure | tokens per pass | tok/s | wrong lines |\n|---|---:|---:|---:|")
    for row in table(loaded, options.modes.split(","), options.texts, options.rounds):
        print(row, flush=True)


def table(loaded: LoadedModel, modes: list[str], texts: int, rounds: int) -> list[str]:
    make = Variants(loaded)
    parts = [split(text) for text in held_out_pattern_texts(texts)]
    requests = [request_of(loaded, begin, rest) for begin, rest in parts]
    *_, every = interleave([make.find(name) for name in modes], requests, rounds)
    return [row_of(runs, [rest for _, rest in parts]) for runs in every]


def split(text: str) -> tuple[str, str]:
    """What is given, and what can only follow."""
    lines = text.splitlines(keepends=True)
    return "".join(lines[:SHOWN_LINES]), "".join(lines[SHOWN_LINES:])


def request_of(loaded: LoadedModel, begin: str, rest: str) -> Request:
    tokens = len(loaded.tokenizer.encode_bare(rest)) + 1  # and the end
    return Request(
        loaded.tokenizer.encode(begin), 1, SamplingParameters(temperature=0), tokens, loaded.eos_token_ids, top=0
    )


def row_of(runs: TimedRuns, expected: list[str]) -> str:
    first = [of_text[0] for of_text in runs.by_request]
    per_pass = sum(len(run.token_ids) for run in first) / sum(run.forwards for run in first)
    wrong, lines = 0, 0
    for run, rest in zip(first, expected, strict=True):
        pairs = list(zip_longest(run.text.split("\n"), rest.split("\n")))
        wrong += sum(actual != line for actual, line in pairs)
        lines += len(pairs)
    rate = statistics.median(runs.rates)
    return f"| {runs.mode.name} | {per_pass:.2f} | {rate:,.0f} | {100 * wrong / lines:.1f} % |"


if __name__ == "__main__":
    main()

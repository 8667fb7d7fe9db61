"""Rows at once: the tokens per second of several sequences in one pass, over those of one alone.

    python tests/peers/rows.py [MODEL] [--rows 1 8 16] [--context 128] [--tokens 16] [--weights int8] [--level v3]
                                [--runs 5] [--threads 2]

Nothing but the engine runs, each row behind a prompt of its own. The numbers of rows take turns; medians.
"""

from __future__ import annotations

import statistics
import time

from contenders import common_options, median_and_range, use_level

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.engine.engine import Engine
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.bench import most_probable, prefill, prompt_of


def main() -> None:
    parser = common_options(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--weights", default="int8", choices=["float32", "bfloat16", "int8", "int4"])
    options = parser.parse_args()
    use_level(options.level)
    is_quantised = options.weights.startswith("int")
    engine = load_model(
        resolve(options.model),
        dtype="auto" if is_quantised else options.weights,
        quantize=options.weights if is_quantised else "none",
        device="cpu",
        backend="native",
        threads=options.threads,
    ).engine
    batches = {rows: Batch(engine, rows, options.context) for rows in options.rows}
    rates: dict[int, list[float]] = {rows: [] for rows in options.rows}
    for run in range(options.runs + 1):
        for rows, batch in batches.items():
            rate = batch.rate(options.tokens)
            if run:  # the first is a warm-up
                rates[rows].append(rate)
    print(f"{options.weights} behind {options.context}, level {options.level}, {options.threads} threads")
    first = statistics.median(rates[options.rows[0]])
    for rows, values in rates.items():
        print(f"{rows:3} rows {median_and_range(values)}   {statistics.median(values) / first:.2f} x")


class Batch:
    """Rows behind prompts that are in their cache."""

    def __init__(self, engine: Engine, rows: int, context: int):
        self.engine, self.rows, self.context = engine, rows, context
        self.cache, _, self.token_ids = prefill(engine, prompt_of(engine.vocab_size, rows, context))

    def rate(self, tokens: int) -> float:
        """Tokens per second, all rows together."""
        ids, started = self.token_ids, time.perf_counter()
        for _ in range(tokens):
            ids = most_probable(self.engine.forward(ids, self.cache))
        seconds = time.perf_counter() - started
        for row in range(self.rows):
            self.cache.truncate(row, self.context)
        return self.rows * tokens / seconds


if __name__ == "__main__":
    main()

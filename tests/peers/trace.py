"""What keeping a run costs: the decode loop with a trace of 20 candidates a step over the same without, in turns.

python tests/peers/trace.py [MODEL] [--quantize int8] [--gz]
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from tokenglass.cli.__main__ import ALLOCATIONS
from tokenglass.model import load
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.runs.run import describe_run
from tokenglass.model.runs.trace_writer import TraceWriter, watch

TURNS, TOKENS, TOP, KEPT = 31, 128, 5, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="tale")
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--gz", action="store_true")
    options = parser.parse_args()
    gc.set_threshold(ALLOCATIONS)  # as the program does
    loaded = load(options.model, quantize=options.quantize)
    prompt_ids = tuple(loaded.tokenizer.encode("Once upon a time there was a fox"))
    request = Request(prompt_ids, 1, max_new_tokens=TOKENS, ignore_eos=True, top=TOP)

    def seconds(folder: Path | None) -> float:
        asked = replace(request, top=TOP if folder is None else KEPT)
        records = decode(Job(loaded.engine, loaded.tokenizer, asked))
        writer = None
        if folder is not None:
            writer = TraceWriter(folder / f"{time.monotonic_ns()}.jsonl{'.gz' if options.gz else ''}")
            records = watch(describe_run(loaded, asked, ""), records, writer.add)
        started = time.perf_counter()
        for _ in records:
            pass
        if writer is not None:
            writer.close()
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder))
        turns = [(seconds(None), seconds(Path(folder))) for _ in range(TURNS)]
    without, with_trace = (median(column) for column in zip(*turns, strict=True))
    cost = median(with_trace / without - 1 for without, with_trace in turns)
    print(
        f"{TOKENS / without:,.0f} tok/s without, {TOKENS / with_trace:,.0f} with; the trace costs {cost:.1%} (median)"
    )


if __name__ == "__main__":
    main()

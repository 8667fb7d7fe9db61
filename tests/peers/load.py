"""Load time and peak memory against transformers: the same checkpoint, each in processes of its own.

    python tests/peers/load.py MODEL [--runs 5]

Each process imports its library first; then loading and one forward pass (which reads every weight) are timed. Peak
memory is the process's largest resident size, less what it was after the import.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.store import resolve

MEASURE = """
import json, resource, time
import torch
{imports}
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
{load}
loaded = time.perf_counter()
{forward}
ended = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([loaded - started, ended - started, (peak - base) * 1024]))
"""
OURS = {
    "imports": "from pathlib import Path\nfrom tokenglass.model.loading import load_model",
    "load": "model = load_model(Path({folder!r}))",
    "forward": "model.engine.forward([[1, 2, 3]], None)",
}
PEER = {
    "imports": "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "load": "model = AutoModelForCausalLM.from_pretrained({folder!r}, dtype='auto')\n"
    "tokenizer = AutoTokenizer.from_pretrained({folder!r})",
    "forward": "with torch.inference_mode():\n    model(torch.tensor([[1, 2, 3]]))",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    folder = resolve(options.model)
    weights = Checkpoint.open(folder).nbytes
    measured: dict[str, list[list[float]]] = {"tokenglass": [], "transformers": []}
    for counted in [False] + [True] * options.runs:
        for name, parts in (("tokenglass", OURS), ("transformers", PEER)):
            filled = {key: part.format(folder=str(folder)) for key, part in parts.items()}
            program = MEASURE.format(**filled)
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
            if counted:
                measured[name].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{folder.name}: weights {weights / 2**20:,.0f} MiB, medians of {options.runs} interleaved runs")
    medians = {
        name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in measured.items()
    }
    for name, (load, first, peak) in medians.items():
        print(
            f"{name:14} load {load:6.2f} s   and first pass {first:6.2f} s   peak {peak / weights:5.2f} x the weights"
        )
    ours, peer = medians["tokenglass"], medians["transformers"]
    print(f"ratios ours / transformers: load {ours[0] / peer[0]:.2f}, with first pass {ours[1] / peer[1]:.2f}")


if __name__ == "__main__":
    main()

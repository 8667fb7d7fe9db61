"""Cold start: processor and wall time of whole processes, from the shell's point of view.

    python tests/peers/start.py [--runs 5]

`generate --help` and the bundled model's first token, as ratios to Python with the libraries that a start needs; for
comparison `import torch` and transformers' first token.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tokenglass.model.checkpoint.store import bundled_folder

LIBRARIES = "import numpy, tokenizers, safetensors, typer, rich.console"
TRANSFORMERS = """
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForCausalLM.from_pretrained({folder!r}, dtype=torch.float32)
prompt = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)
out = model.generate(**prompt, max_new_tokens=1)
print(tokenizer.decode(out[0]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    generate = Path(sys.executable).parent / "generate"
    commands = {
        "the libraries": [sys.executable, "-c", LIBRARIES],
        "generate --help": [generate, "--help"],
        "generate -n 1": [generate, "Once upon a time", "-n", "1"],
        "import torch": [sys.executable, "-c", "import torch"],
        "transformers, 1 token": [sys.executable, "-c", TRANSFORMERS.format(folder=str(bundled_folder()))],
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for counted in [False] + [True] * runs:
        for name, command in commands.items():
            spent = measure(command)
            if counted:
                measured[name].append(spent)
    print(f"medians of {runs} interleaved runs")
    least = statistics.median(cpu for cpu, _ in measured["the libraries"])
    for name, spent in measured.items():
        cpu, wall = (statistics.median(column) for column in zip(*spent, strict=True))
        print(f"{name:24} {cpu:6.2f} s of processor ({cpu / least:4.1f} x)   {wall:6.2f} s of wall time")


def measure(command: list[object]) -> tuple[float, float]:
    """Processor seconds and wall seconds of one process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


if __name__ == "__main__":
    main()

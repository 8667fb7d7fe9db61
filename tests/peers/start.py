"""Cold start: processor and wall time of whole processes, from the shell's point of view.

    python tests/peers/start.py [--runs 5] [--models smollm2 smollm2-int8] [--gguf smollm2.gguf]

`generate --help` and the first token of the bundled model and others, as ratios to Python with the libraries that a
start needs; for comparison `import torch`, transformers' first token and that of llama.cpp's binding on a GGUF file.
All read compiled modules from one folder, as after an install, whatever the environment says of them.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
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
LLAMA_CPP = """
import os, sys
from pathlib import Path
sys.path.insert(0, {peers!r})
from llama_cpp import LlamaCpp
server = LlamaCpp(Path({path!r}), context=512)
print(server.complete(server.tokenize("Once upon a time"), 1, keep=False)["content"], flush=True)
os._exit(0)  # its threads have nothing more to do
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=[], help="further models of which a token is asked")
    parser.add_argument("--gguf", help="a GGUF file for llama.cpp's binding")
    options = parser.parse_args()
    runs = options.runs
    generate = Path(sys.executable).parent / "generate"
    commands = {
        "the libraries": [sys.executable, "-c", LIBRARIES],
        "generate --help": [generate, "--help"],
        "generate -n 1": [generate, "Once upon a time", "-n", "1"],
        "import torch": [sys.executable, "-c", "import torch"],
        "transformers, 1 token": [sys.executable, "-c", TRANSFORMERS.format(folder=str(bundled_folder()))],
    }
    for model in options.models:
        commands[f"-m {Path(model).name} -n 1"] = [generate, "-m", model, "Once upon a time", "-n", "1"]
    if options.gguf:
        commands["llama.cpp, 1 token"] = [
            sys.executable,
            "-c",
            LLAMA_CPP.format(peers=str(Path(__file__).parent), path=options.gguf),
        ]
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as compiled:
        environment["PYTHONPYCACHEPREFIX"] = compiled
        for counted in [False] + [True] * runs:
            for name, command in commands.items():
                spent = measure(command, environment)
                if counted:
                    measured[name].append(spent)
    print(f"medians of {runs} interleaved runs")
    least = statistics.median(cpu for cpu, _ in measured["the libraries"])
    for name, times in measured.items():
        cpu, wall = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:24} {cpu:6.2f} s of processor ({cpu / least:4.1f} x)   {wall:6.2f} s of wall time")


def measure(command: list[object], environment: dict[str, str]) -> tuple[float, float]:
    """Processor seconds and wall seconds of one process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


if __name__ == "__main__":
    main()

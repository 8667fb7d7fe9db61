"""What the live view costs: tokens per second against the plain view, on a real pseudo-terminal.

    python tests/peers/live.py [MODEL] [--tokens 96] [--runs 5] [--threads 2]

Absent a model, random weights of 100 million parameters are made. Both views run in this process, in turn, on a
terminal of 120x40 that another process drains; the medians, their ratio and the redraws per second are printed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import statistics
import struct
import subprocess
import tempfile
import termios
import time
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.views.live import LiveView
from tokenglass.cli.views.plain import PlainView
from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.runs.run import describe_run

FRAME = b"\x1b[?2026h"  # begins every frame of the live view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="a checkpoint folder")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or random_model(Path(folder))
        loaded = load_model(model, dtype="float32", device="cpu", backend="auto", threads=options.threads)
        rates: dict[str, list[float]] = {"plain": [], "live": []}
        frames: list[float] = []
        for counted in [False] + [True] * options.runs:
            for name, measured in rates.items():
                seconds, redraws = timed(loaded, name, options.tokens, Path(folder) / "screen")
                if counted:
                    measured.append(options.tokens / seconds)
                    frames += [redraws / seconds] if name == "live" else []
    print(f"{loaded.checkpoint.num_parameters:,} parameters, {options.tokens} tokens, {options.runs} runs each")
    for name, measured in rates.items():
        print(f"{name:6} {statistics.median(measured):8.1f} tok/s   ({min(measured):.1f} to {max(measured):.1f})")
    ratio = statistics.median(rates["live"]) / statistics.median(rates["plain"])
    print(f"live / plain {ratio:.3f}, {statistics.median(frames):.1f} redraws a second")


def random_model(folder: Path) -> Path:
    """100 million random parameters with the bundled tokenizer."""
    sizes = {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12, "num_attention_heads": 12}
    LlamaForCausalLM(LlamaConfig(vocab_size=4096, max_position_embeddings=1024, **sizes)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((bundled_folder() / name).read_bytes())
    return folder


def timed(loaded: LoadedModel, name: str, tokens: int, screen: Path) -> tuple[float, int]:
    """Seconds of one run on a pseudo-terminal, loading not counted, and the frames it drew."""
    request = Request(loaded.tokenizer.encode("Once upon a time"), seed=1, max_new_tokens=tokens)
    run = describe_run(loaded, request, "Once upon a time")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    with screen.open("wb") as out, subprocess.Popen(["cat"], stdin=master, stdout=out, stderr=subprocess.DEVNULL):
        os.close(master)
        with os.fdopen(slave, "w", encoding="utf-8") as terminal:
            console = make_console(terminal, color="always")
            view = LiveView(console) if name == "live" else PlainView(console)
            started = time.perf_counter()
            view.show(run, decode(Job(loaded.engine, loaded.tokenizer, request)))
            seconds = time.perf_counter() - started
    return seconds, screen.read_bytes().count(FRAME)


if __name__ == "__main__":
    main()

"""Ten thousand prompts through a pipe, killed at random and gone on with: what is lost, what comes twice, what memory.

    python tests/peers/killed.py [--prompts 10000] [--kills 5] [--tokens 12] [--model MODEL]

Prints how many lines there were at each kill, whether every id came once and in order, and the peak of the memory at
prompt 1,000 and at the end of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

GENERATE = Path(sys.executable).with_name("generate")
NAMES = ["fox", "hen", "bear", "cat", "boy", "girl", "dog", "bird", "tree", "king"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--model", default="tale")
    options = parser.parse_args()
    lines = [
        f"Once upon a time a {NAMES[number % 10]} and a {NAMES[number // 10 % 10]} met number {number}\n"
        for number in range(options.prompts)
    ]
    arguments = ["--each-line", "-n", str(options.tokens), "-m", options.model, "--seed", "3", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder) / "killed.jsonl", Path(folder) / "whole.jsonl"
        draw = random.Random(7)
        for stop in sorted(draw.sample(range(options.prompts // 20, options.prompts), options.kills)):
            process = begin(lines, [*arguments, "--output", str(killed)])
            while process.poll() is None and count(killed) < stop:
                time.sleep(draw.random() / 5)
            process.kill()
            process.wait()
            print(f"killed at {count(killed):,} answers", flush=True)
        begin(lines, [*arguments, "--output", str(killed)]).wait()
        ids = [json.loads(line)["id"] for line in killed.open()]
        print(f"{len(ids):,} answers, each once and in order: {ids == list(range(1, options.prompts + 1))}")
        peaks = peaks_of(begin(lines, [*arguments, "--output", str(whole)]), whole)
        early = max(peak for answers, peak in peaks if answers <= max(1000, options.prompts // 10))
        last = peaks[-1][1]
        print(
            f"peak memory {early / 1024:.1f} MiB up to prompt 1,000, {last / 1024:.1f} at the end: {last / early:.3f}"
        )
        print(f"an undisturbed run wrote the same bytes: {whole.read_bytes() == killed.read_bytes()}")


def begin(lines: list[str], arguments: list[str]) -> subprocess.Popen[bytes]:
    """A run that reads the lines from a pipe."""
    process = subprocess.Popen([GENERATE, *arguments], stdin=subprocess.PIPE)

    def write() -> None:
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                pipe.write("".join(lines).encode())
        except BrokenPipeError:
            pass

    threading.Thread(target=write, daemon=True).start()
    return process


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def peaks_of(process: subprocess.Popen[bytes], path: Path) -> list[tuple[int, int]]:
    """How many answers there were, and the largest memory (KiB) until then, again and again."""
    peaks = []
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks += [(count(path), int(line.split()[1])) for line in status.splitlines() if line.startswith("VmHWM")]
        time.sleep(0.2)
    return peaks


if __name__ == "__main__":
    main()

"""A few hundred mutated files of every kind. tests/peers/fuzz.py makes them, and thousands more on request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from shell import ENVIRONMENT

FUZZ = Path(__file__).parent / "peers" / "fuzz.py"
KINDS = ("config", "header", "tokenizer", "gguf", "cut", "quantised", "small", "index", "weights")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits the memory of its children")
def test_a_mutated_file_ends_in_a_text_or_in_one_short_line() -> None:
    """Neither a traceback nor a signal, a hang, a control character or a page of text; and both ends are seen."""
    families = [part for name in ("llama", "gemma2", "gpt2") for part in ("--family", name)]
    done = subprocess.run(
        [sys.executable, FUZZ, "--count", "25", *families],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={
            **ENVIRONMENT,
            "PYTHONPATH": f"{FUZZ.parent.parent}:{FUZZ.parent.parent.parent}",
            "PYTHONWARNINGS": "ignore",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    counts = {kind: json.loads(ends) for kind, ends in (line.split(" ", 1) for line in done.stdout.splitlines())}
    assert counts.keys() == set(KINDS)
    assert all(ends["refused"] for ends in counts.values()), counts
    assert sum(ends.get("text", 0) for ends in counts.values()) > 20, (
        "some of it still loads, so that more is tried than the opening"
    )

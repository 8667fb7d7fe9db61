"""A mapped file of weights that becomes shorter while a model runs ends in one line, not in a signal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from native_parts import compiled
from shell import ENVIRONMENT, SCRIPTS

from tokenglass.model.checkpoint.store import bundled_folder

ANOTHER_FILE = """
import mmap, sys
from pathlib import Path
from tokenglass.model import generate, load

model = load(sys.argv[1], dtype="bfloat16", backend="native")
list(generate(model, "The fox", max_new_tokens=2))
path = Path(sys.argv[2])
path.write_bytes(bytes(2 * mmap.PAGESIZE))
with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
    file.truncate(0)
    mapped[0]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    compiled()  # skips where there are no kernels
    return Path(shutil.copytree(bundled_folder(), tmp_path / "tale"))


@pytest.mark.parametrize("threads", ["1", "3"])
def test_weights_that_become_shorter_end_the_run_with_one_line(folder: Path, threads: str) -> None:
    arguments = ["-m", str(folder), "--dtype", "bfloat16", "--backend", "native", "--threads", threads, "--each-line"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([SCRIPTS / "generate", *arguments, "-n", "4"], env=ENVIRONMENT, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"The fox\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["new_tokens"] == 4
        os.truncate(folder / "model.safetensors", 4096)
        out, errors = process.communicate(b"The hen\n", timeout=60)
    assert process.returncode == 1
    assert out == b""
    assert [b"became shorter" in line for line in errors.splitlines()].count(True) == 1, errors
    assert b"Traceback" not in errors


def test_a_bus_error_of_anything_else_ends_the_process_as_ever(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ANOTHER_FILE, str(folder), str(tmp_path / "other")]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGBUS, done.stderr

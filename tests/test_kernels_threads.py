"""Several callers of one engine, and several threads of one call, however the system runs them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import native_parts
import pytest
import tiny
import torch
from families import random_ids
from native_parts import FLAGS, native, sanitizer_runtime
from torch_parts import as_tensor

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Dynamic, Rope
from tokenglass.model.native_engine.engine import NativeEngine, pass_rows
from tokenglass.model.native_engine.structures import PassRow

CALLERS, ENGINES = 4, 8
PLAIN = replace(tiny.CONFIG, max_positions=1024)
# The table of each length is another one.
DYNAMIC = replace(PLAIN, layers=(LayerKind(Rope(10000.0, 8, Dynamic(factor=2.0, trained_positions=16))),) * 2)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other callers run while one prepares its pass."""

    def slowly(*described: Any) -> ctypes.Array[PassRow]:
        time.sleep(0.001)
        return pass_rows(*described)

    monkeypatch.setattr("tokenglass.model.native_engine.engine.pass_rows", slowly)


def logits_by_steps(engine: NativeEngine, ids: torch.Tensor) -> torch.Tensor:
    length = ids.shape[1]
    cache = engine.new_cache(planned_length=length)
    parts = ids.split([20, *[1] * 5, length - 25], dim=1)
    return torch.cat([as_tensor(engine.forward(part, cache, last=None)) for part in parts], dim=1)


@pytest.mark.parametrize("config", [PLAIN, DYNAMIC], ids=["one table", "a table per length"])
@pytest.mark.usefixtures("interrupted")
def test_callers_with_different_lengths_get_what_each_gets_alone(config: ModelConfig) -> None:
    model = tiny.random_transformer(config)
    texts = [random_ids(length, rows=1) for length in (30, 300, 60, 600)]
    expected = [as_tensor(native(model).forward(ids, None, last=None)) for ids in texts]
    wrong: list[int] = []
    for _ in range(ENGINES):
        engine = native(model)  # a new one, whose tables have to grow
        start = threading.Barrier(CALLERS)

        def ask(number: int, engine: NativeEngine = engine, start: threading.Barrier = start) -> None:
            start.wait()
            whole, parts = (
                as_tensor(engine.forward(texts[number], None, last=None)),
                logits_by_steps(engine, texts[number]),
            )
            wrong.extend(number for logits in (whole, parts) if not torch.equal(logits, expected[number]))

        callers = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not wrong


def test_the_numbers_of_phases_never_run_out() -> None:
    """With 6 bits for the number of a phase they would within a few passes, if passes did not begin anew."""
    done = run_apart("""
engine = native_parts.native(tiny.random_transformer())
narrow = Machine(native_parts.compiled("-DTASK_BITS=58"), engine.program.operations, engine.sizes)
ids = torch.arange(30)[None]
def logits(cache): return [as_tensor(engine.forward(part, cache)) for part in ids.split(1, dim=1)]
expected = logits(engine.new_cache())
engine.machine = narrow
assert all(torch.equal(*pair) for pair in zip(logits(engine.new_cache()), expected))
""")
    assert done.returncode == 0, done.stderr


def test_more_threads_than_processors_do_the_same_work() -> None:
    done = run_apart("""
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
engine = native_parts.native(tiny.random_transformer())
ids = torch.arange(40)[None]
torch.set_num_threads(1)
expected = as_tensor(engine.forward(ids, None, last=None))
torch.set_num_threads(16)
cache = engine.new_cache()
parts = [as_tensor(engine.forward(part, cache, last=None)) for part in ids.split(1, dim=1)]
assert torch.equal(torch.cat(parts, dim=1), expected)
""")
    assert done.returncode == 0, done.stderr


def test_threads_without_work_take_no_processor_time() -> None:
    """They look out for the next pass for a moment, then they sleep, and leave the processors to others."""
    done = run_apart("""
import time
engine = native_parts.native(tiny.random_transformer())
engine.forward(torch.arange(40)[None], None)
time.sleep(0.1)
before = time.process_time()
time.sleep(0.5)
assert time.process_time() - before < 0.1, "half a second of four threads that spin is two"
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_no_thread_reads_what_another_writes() -> None:
    """The whole pass under ThreadSanitizer, with threads that come late."""
    runtime = sanitizer_runtime("tsan")
    flags = {FLAGS: "-fsanitize=thread -g -O1", "LD_PRELOAD": str(runtime)}
    trial = run_apart("", flags)
    if trial.returncode:
        pytest.skip(f"ThreadSanitizer does not run here: {trial.stderr.strip()[-200:]}")
    done = run_apart(
        """
model = tiny.random_transformer()
for kind in ("float32", "int8"):
    if kind != "float32":
        quantize_model(model, kind)
    engine = native_parts.native(model)
    ids = torch.arange(40)[None]
    for _ in range(10):
        cache = engine.new_cache()
        for part in ids.split([12, *[1] * 24, 4], dim=1):
            as_tensor(engine.forward(part, cache))
    engine.read(np.zeros(2**20, np.uint8))
""",
        flags,
    )
    assert done.returncode == 0, done.stderr[-6000:]


def run_apart(script: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A process of its own with four threads: one that hangs or is stopped ends no test run."""
    native_parts.compiled()  # skips where there is no compiler
    setup = f"""
import os, sys, numpy as np, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
torch.set_num_threads(4)
import native_parts, tiny
from torch_parts import as_tensor, quantize_model
from tokenglass.model.native_engine.machine import Machine
"""
    command = [sys.executable, "-W", "ignore", "-c", setup + script]
    variables = {**os.environ, **(environment or {})}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)

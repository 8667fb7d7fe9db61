"""Fixtures that several test files share; the parts themselves are in tiny.py."""

from __future__ import annotations

import os

os.environ.pop("PYTHONIOENCODING", None)  # of whoever runs the tests: a test that is about it sets its own
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: two workers on two cores
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import settings

from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine.facts import kernels_of
from tokenglass.model.native_engine.shared_library import load_library
from tokenglass.model.text.tokenizer import Tokenizer

os.environ["TOKENGLASS_SPEED"] = "max"  # views wait in the tests of the pace alone
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched in a test
settings.register_profile("tokenglass", deadline=None, derandomize=True)
settings.load_profile("tokenglass")


def pytest_report_header() -> str:
    """Which kernels the tests run: with TOKENGLASS_MARCH=x86-64-v3 those of a processor that has AVX2 and no more."""
    try:
        return f"kernels: {kernels_of(load_library())}"
    except KernelsError as reason:
        return f"kernels: none ({reason})"


@pytest.fixture(scope="session")
def saved_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a byte-level tokenizer. Read only: copy it before a change."""
    folder = tiny.save_llama(tmp_path_factory.mktemp("tiny-llama"))
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny.byte_level_tokenizer())


@pytest.fixture
def unwritten_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch fills new memory with NaN in this mode, so that reading a slot nobody wrote shows. Growth begins early."""
    monkeypatch.setattr("tokenglass.model.engine.keys_values.FIRST_ALLOCATION", 4)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def tmux() -> Iterator[Callable[..., str]]:
    """Run tmux on a server of its own."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed; pyte alone is asked")
    name = f"tokenglass-{uuid.uuid4().hex[:8]}"

    def run(*arguments: str) -> str:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["tmux", "-L", name, "-f", "/dev/null", *arguments], capture_output=True, check=True, env=environment
        )
        return done.stdout.decode()

    yield run
    subprocess.run(["tmux", "-L", name, "kill-server"], capture_output=True, check=False)

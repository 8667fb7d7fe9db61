"""On the native engine nothing imports torch; what needs it imports it when it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import native_parts
import pytest
from shell import ENVIRONMENT

BLOCKED = """
import sys
sys.modules["torch"] = None  # whoever imports it gets an ImportError
sys.argv = {argv!r}
from tokenglass.cli.__main__ import {name}
{name}()
"""


def run(name: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """`generate` or `tokenglass` in a process that has no torch."""
    code = BLOCKED.format(argv=[name, *arguments], name=name)
    return subprocess.run(
        [sys.executable, "-c", code], input=stdin, capture_output=True, timeout=120, check=False, env=ENVIRONMENT
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--jsonl",),
        ("--chat",),
        ("--quantize", "int8"),
        ("--quantize", "int4"),
        ("--dtype", "bfloat16"),
        ("--no-cache",),
        ("--mode", "parallel"),
        ("--mode", "speculative"),
        ("--mode", "speculative", "--draft", "parallel"),
        ("--mode", "speculative", "--draft-model", "tale"),
        ("--mode", "jacobi"),
        ("--num-samples", "2"),
        ("--beams", "2"),
        ("--json-schema", '{"type": "boolean"}'),
        ("--stop", "the", "--ban", "a", "--heal"),
        ("--negative", "Two", "--guidance", "2"),
        ("--view", "plain", "--stats", "--show-chain"),
    ],
    ids=" ".join,
)
def test_every_way_to_generate_does_without_torch(arguments: tuple[str, ...]) -> None:
    native_parts.compiled()  # skips where there are no kernels
    done = run("generate", "Once upon a time", "-n", "6", "--seed", "1", "--backend", "native", *arguments)
    if "--chat" in arguments:  # tale has no template, which is found out without torch too
        assert (done.returncode, b"template" in done.stderr) == (1, True), done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("tokens", "Hello"),
        ("inspect", "tale"),
        ("models",),
        ("bench", "tale", "--quick", "--json"),
        ("--help",),
    ],
    ids=" ".join,
)
def test_commands_that_compute_nothing_with_torch_do_without_it(arguments: tuple[str, ...]) -> None:
    native_parts.compiled()
    done = run("tokenglass", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_quantize_stores_and_measures_without_torch(tmp_path: Path) -> None:
    native_parts.compiled()
    done = run("tokenglass", "quantize", "tale", str(tmp_path / "small"), "--format", "int4")
    assert done.returncode == 0, done.stderr
    done = run("generate", "-m", str(tmp_path / "small"), "Once", "-n", "4")
    assert done.returncode == 0, done.stderr


def test_what_needs_torch_imports_it() -> None:
    done = run("generate", "Once", "-n", "2", "--backend", "torch")
    assert done.returncode == 1
    assert b"torch" in done.stderr


@pytest.mark.parametrize("path", ["", "."], ids=["as installed", "PYTHONPATH=."])
def test_a_user_may_have_folders_of_the_same_names(path: str, tmp_path: Path) -> None:
    for name in ("cli", "model", "weights"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = True\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import cli, model, weights\n"
        "assert cli.MINE and model.MINE and weights.MINE\n"
        "from tokenglass.model import generate, load\n"
        "records = generate(load('tale'), 'Once upon a time', seed=1, max_new_tokens=5)\n"
        "print(''.join(record.text for record in records))\n"
    )
    kept = os.environ.get("PYTHONPATH", "")
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, (path, kept)))}
    for command in ([sys.executable, "script.py"], [sys.executable, "-m", "tokenglass.cli", "models"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()

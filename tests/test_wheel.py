"""The built wheel is the whole product."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from shell import ENVIRONMENT

from tokenglass.model.native_engine import build

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_built_wheel_generates_in_an_empty_folder(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "tokenglass/weights/tale/model.safetensors" in names
    assert {f"tokenglass/model/native_engine/c/{source.name}" for source in build.sources()} <= {*names}
    assert not [name for name in names if name.startswith("tests/")]
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel]
    subprocess.run(install, check=True, capture_output=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    # -P leaves the current folder off the path, so only the wheel can answer
    done = subprocess.run(
        [sys.executable, "-P", target / "bin" / "generate", "Once upon a time", "-n", "20", "--seed", "1"],
        cwd=empty,
        capture_output=True,
        check=False,
        env={**ENVIRONMENT, "PYTHONPATH": str(target)},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 8
    assert list(empty.iterdir()) == []

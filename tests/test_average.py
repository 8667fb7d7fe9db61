"""The average of checkpoints, by its command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as torch_file


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        weights = {"a": generator.normal(size=(3, 4)), "b": generator.normal(size=5)}
        save_file(
            {key: value.astype(np.float16) for key, value in weights.items()}, tmp_path / name / "model.safetensors"
        )
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": name}))
    return [tmp_path / "one", tmp_path / "two"]


def average(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tokenglass.weights.recipe.average", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_weights_are_the_sum_of_each_times_its_share_in_float32(folders: list[Path], tmp_path: Path) -> None:
    one, two = folders
    assert average(tmp_path / "out", f"{one}=0.3", f"{two}=0.7").returncode == 0
    weights = [load_file(folder / "model.safetensors") for folder in (one, two, tmp_path / "out")]
    for name in ("a", "b"):
        expected = 0.3 * weights[0][name].astype(np.float64) + 0.7 * weights[1][name].astype(np.float64)
        assert weights[2][name].dtype == np.float32
        np.testing.assert_allclose(weights[2][name], expected, rtol=1e-6)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"model_type": "one", "torch_dtype": "float32"}


def test_weights_can_be_rounded_to_bfloat16(folders: list[Path], tmp_path: Path) -> None:
    one, two = folders
    shares = [f"{one}=0.5", f"{two}=0.5"]
    assert average(tmp_path / "wide", *shares).returncode == 0
    assert average(tmp_path / "out", *shares, "--dtype", "bfloat16").returncode == 0
    wide, rounded = (torch_file(tmp_path / name / "model.safetensors") for name in ("wide", "out"))
    for name, tensor in wide.items():
        assert torch.equal(rounded[name], tensor.bfloat16())


@pytest.mark.parametrize(
    ("shares", "message"), [(("0.3", "0.6"), "add up to 0.9"), (("0.3", "most"), "a share is a number")]
)
def test_shares_that_make_no_average_are_refused(
    folders: list[Path], tmp_path: Path, shares: tuple[str, str], message: str
) -> None:
    run = average(tmp_path / "out", *(f"{folder}={share}" for folder, share in zip(folders, shares, strict=True)))
    assert run.returncode == 2
    assert message in run.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_missing_and_one_that_is_there_already_are_one_line(
    folders: list[Path], tmp_path: Path
) -> None:
    one, two = folders
    missing = average(tmp_path / "out", f"{one}=0.5", f"{tmp_path / 'no'}=0.5")
    existing = average(two, f"{one}=0.5", f"{two}=0.5")
    for run, name in ((missing, "no"), (existing, "two")):
        assert run.returncode == 2
        assert name in run.stderr.splitlines()[-1]
        assert "Traceback" not in run.stderr


def test_checkpoints_of_other_shapes_have_no_average(folders: list[Path], tmp_path: Path) -> None:
    one, two = folders
    save_file({"a": np.zeros((4, 3), np.float16), "b": np.zeros(5, np.float16)}, two / "model.safetensors")
    run = average(tmp_path / "out", f"{one}=0.5", f"{two}=0.5")
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith("two: other tensors or shapes than the folders before it")
    assert not (tmp_path / "out").exists()

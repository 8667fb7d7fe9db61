"""tokenglass quantize, as a shell runs it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pexpect
import pytest
from shell import ENVIRONMENT, assert_one_line_error, generate, tokenglass

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.shards import SINGLE
from tokenglass.model.checkpoint.store import bundled_folder


@pytest.mark.parametrize("stored", ["int8", "int4"])
def test_what_it_stores_generates_and_says_what_it_cost(stored: str, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    done = tokenglass("quantize", "tale", str(folder), "--format", stored, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    checkpoint = Checkpoint.open(folder)
    held = (folder / "model.safetensors").stat().st_size * 8 / Checkpoint.open(bundled_folder()).num_parameters
    assert facts["bits_per_weight"] == checkpoint.bits_per_weight == pytest.approx(held, rel=0.01)
    assert 8 < held < 8.5 if stored == "int8" else 4.5 < held < 6.5  # the embedding and the head stay in int8
    assert facts["source_fingerprint"] == Checkpoint.open(bundled_folder()).fingerprint
    assert facts["text"] == "built in"
    assert facts["tokens"] > 1000
    assert 0 < facts["mean_kl_nats"] < (0.002 if stored == "int8" else 0.02)
    assert facts["perplexity"] / facts["reference_perplexity"] == pytest.approx(facts["perplexity_ratio"])
    told = generate("-m", str(folder), "Once upon a time", "-n", "5", "--temperature", "0")
    assert told.returncode == 0, told.stderr
    assert told.stdout


def test_the_cost_is_measured_on_the_text_that_is_given(saved_checkpoint: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The fox said hello to the bear. " * 4)
    done = tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "made"), "--text", str(text))
    assert done.returncode == 0, done.stderr
    words = done.stdout.decode()
    assert str(text) in "".join(words.split())
    for word in ("bits per weight", "perplexity", "mean KL", "nats"):
        assert word in words


def test_without_measuring_it_says_so(saved_checkpoint: Path, tmp_path: Path) -> None:
    done = tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "made"), "--no-measure")
    assert b"not measured" in done.stdout


def test_a_folder_with_something_in_it_is_left_alone(saved_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "notes.txt").write_text("mine")
    done = tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "made"))
    assert_one_line_error(done, 1, "is already there")
    assert [file.name for file in (tmp_path / "made").iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(saved_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    assert tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "made"), "--no-measure").returncode == 0
    assert (tmp_path / "made" / SINGLE).is_file()


def test_a_quantised_model_is_not_quantised_again(saved_checkpoint: Path, tmp_path: Path) -> None:
    assert tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "a"), "--no-measure").returncode == 0
    done = tokenglass("quantize", str(tmp_path / "a"), str(tmp_path / "b"))
    assert_one_line_error(done, 1, "quantised already")
    assert not (tmp_path / "b").exists()


def test_a_damaged_stored_model_is_one_line(saved_checkpoint: Path, tmp_path: Path) -> None:
    assert tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "a"), "--no-measure").returncode == 0
    weights = tmp_path / "a" / SINGLE
    weights.write_bytes(weights.read_bytes()[:-64])
    assert_one_line_error(generate("-m", str(tmp_path / "a"), "fox", "-n", "2"), 1, "damaged or incomplete")


def test_inspect_tells_the_format_without_loading_it(saved_checkpoint: Path, tmp_path: Path) -> None:
    assert tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "a"), "--no-measure").returncode == 0
    facts = json.loads(tokenglass("inspect", str(tmp_path / "a"), "--json").stdout)
    assert set(facts["dtypes"]) == {"int8", "float32"}
    assert facts["parameters"] == Checkpoint.open(saved_checkpoint).num_parameters
    run = json.loads(generate("-m", str(tmp_path / "a"), "fox", "-n", "1", "--jsonl").stdout.splitlines()[0])
    assert facts["cache_dtype"] == run["engine"]["cache_dtype"]


def test_a_terminal_sees_how_far_it_is(saved_checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(saved_checkpoint, tmp_path / "source")
    arguments = ["quantize", str(source), str(tmp_path / "made")]
    environment = {**ENVIRONMENT, "TERM": "xterm-256color"}
    command = Path(sys.executable).parent / "tokenglass"
    with pexpect.spawn(str(command), arguments, env=environment, encoding="utf-8", timeout=120) as child:
        child.expect("quantising")
        child.expect("measuring")
        child.expect("mean KL")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 0

"""Weights of 4 bits that are fitted to what they are multiplied with: what is measured, and what it is worth."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import native_parts
import numpy as np
import pytest
import torch
from families import CASES, random_ids, save
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file
from shell import assert_one_line_error, tokenglass
from test_quantisation import numbers
from test_quantised_files import quantise

from tokenglass.model.checkpoint.quantised import quantize
from tokenglass.model.checkpoint.shards import SINGLE
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.calibration import windows_of, write_texts
from tokenglass.model.measuring.quality import compare, held_out_text

COMMAND = ("--format", "int4", "--no-measure")


@given(
    st.tuples(st.integers(1, 4), st.sampled_from([32, 64])).flatmap(  # whole groups: what fills one up errs as well
        lambda shape: st.tuples(
            arrays(np.float32, shape, elements=numbers),
            arrays(np.float64, shape[1], elements=st.sampled_from([0.0, 1e-9, 0.1, 1.0, 30.0, 1e6])),
        )
    )
)
def test_no_group_errs_more_by_what_its_columns_multiply_than_without_knowing_it(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    matrix, squares = drawn
    groups = squares.reshape(-1, 32)
    mean = groups.mean(1, keepdims=True)
    # As the columns count: by their squares, and all of them a little
    shares = np.where(mean > 0, groups / np.maximum(mean, 1e-300), 1) * 63 / 64 + 1 / 64
    errors = []
    for known in (squares, None):
        wrong = quantize(matrix, "int4", known).dequantize().astype(np.float64) - matrix
        errors.append((wrong.reshape(len(matrix), -1, 32) ** 2 * shares).sum(2))
    # What is read back is rounded to float32, and so are the errors that grids are chosen by.
    rounding = 32 * 32 * (np.abs(matrix).max(initial=0) * 2.0**-21) ** 2
    assert (errors[0] <= errors[1] * (1 + 1e-3) + rounding).all()


def test_columns_that_matter_equally_or_not_at_all_count_alike() -> None:
    matrix = np.random.default_rng(0).standard_normal((20, 96), dtype=np.float32)
    plain = quantize(matrix, "int4", np.zeros(96))
    equal = quantize(matrix, "int4", np.full(96, 7.5))
    assert all(np.array_equal(part, equal.parts[name]) for name, part in plain.parts.items())


@pytest.mark.parametrize(
    "name",
    [
        *("llama, biases", "gpt2", "gemma3_text", "gemma4_text", "gemma4_text, experts", "gpt_oss", "lfm2", "lfm3"),
        *("mixtral", "phi3", "qwen2_moe", "qwen3_next"),
    ],
)
def test_the_kernels_sum_what_the_modules_are_given(name: str, tmp_path: Path) -> None:
    native_parts.compiled()
    save(tmp_path, *CASES[name])
    rows = random_ids(40).tolist()
    ours, theirs = (
        load_model(tmp_path, dtype="float32", device="cpu", backend=backend).engine.sum_squares(rows)
        for backend in ("native", "torch")
    )
    assert ours.keys() == theirs.keys()
    assert ours
    for weight, squares in theirs.items():
        np.testing.assert_allclose(ours[weight], squares, rtol=1e-3, atol=1e-4 * squares.max(), err_msg=weight)


def test_an_expert_that_no_position_takes_is_multiplied_by_nothing(tmp_path: Path) -> None:
    save(tmp_path, *CASES["mixtral"])
    squares = load_model(tmp_path, device="cpu", backend="auto").engine.sum_squares([[5]])
    sums = [value.sum() for name, value in squares.items() if ".0.mlp.experts." in name and "up_proj" in name]
    assert sum(value > 0 for value in sums) == CASES["mixtral"][1].get("num_experts_per_tok", 2)


def test_a_pass_that_nobody_watches_gives_the_same_logits_before_and_after(saved_checkpoint: Path) -> None:
    engine = load_model(saved_checkpoint, device="cpu", backend="auto").engine
    before = engine.forward([[3, 4, 5]], None)[0]
    engine.sum_squares([[3, 4, 5], [6]])
    assert np.array_equal(engine.forward([[3, 4, 5]], None)[0], before)


def test_a_model_writes_as_many_tokens_as_it_is_asked_for_and_the_same_ones_again(saved_checkpoint: Path) -> None:
    loaded = load_model(saved_checkpoint, device="cpu", backend="auto")
    texts = [list(write_texts(loaded, 600))[-1] for _ in range(2)]
    assert texts[0] == texts[1]
    assert [len(text) for text in texts[0]] == [256, 256, 88]
    assert len({tuple(text) for text in texts[0]}) == 3
    assert {text[0] for text in texts[0]} == set(loaded.tokenizer.start_ids)


def test_sums_over_windows_are_sums_over_the_text() -> None:
    assert windows_of(range(600), 1000) == [range(256), range(256, 512), range(512, 600)]
    assert windows_of(range(20), 16) == [range(16), range(16, 20)]
    assert windows_of([], 16) == []


@pytest.fixture(scope="module")
def hot(saved_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model some of whose columns are multiplied with far larger numbers than others."""
    folder = shutil.copytree(saved_checkpoint, tmp_path_factory.mktemp("hot") / "model")
    tensors = load_tensors(folder / SINGLE)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):
            tensor.mul_(torch.exp(1.5 * torch.randn(tensor.shape, generator=generator)))
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    return folder


def test_a_model_with_hot_columns_loses_less_of_its_distribution(hot: Path, tmp_path: Path) -> None:
    reference = load_model(hot, dtype="float32", device="cpu", backend="auto")
    ids = reference.tokenizer.encode(held_out_text())[:1000]
    costs = []
    for tokens in ("0", "2048"):
        folder = tmp_path / tokens
        assert tokenglass("quantize", str(hot), str(folder), *COMMAND, "--calibrate", tokens).returncode == 0
        *_, cost = compare(reference.engine, load_model(folder, device="cpu", backend="auto").engine, ids)
        costs.append(cost.mean_kl)
    assert costs[1] < 0.8 * costs[0]


def test_only_matrices_of_4_bits_differ_and_the_same_model_gives_the_same_file(hot: Path, tmp_path: Path) -> None:
    for name, threads in (("a", "1"), ("b", "2")):
        done = tokenglass("quantize", str(hot), str(tmp_path / name), *COMMAND, "--threads", threads)
        assert done.returncode == 0, done.stderr
    file = tmp_path / "a" / SINGLE
    assert file.read_bytes() == (tmp_path / "b" / SINGLE).read_bytes()
    plain, fitted = load_file(quantise(hot, tmp_path / "plain", "int4") / SINGLE), load_file(file)
    assert plain.keys() == fitted.keys()
    differing = {name.rpartition(".")[0] for name in plain if not np.array_equal(plain[name], fitted[name])}
    assert differing == load_model(hot, device="cpu").engine.model.blueprint.in_4_bits


def test_a_text_of_one_s_own_is_named_by_its_hash(saved_checkpoint: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The fox said hello to the bear. " * 4)
    arguments = ("quantize", str(saved_checkpoint), str(tmp_path / "made"), *COMMAND, "--calibrate-with", str(text))
    done = tokenglass(*arguments, "--calibrate", "30", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(tokenglass("inspect", str(tmp_path / "made"), "--json").stdout)["calibration"]
    assert facts == json.loads(done.stdout)["calibration"]
    assert facts["tokens"] == 30
    assert facts["sha256"] == hashlib.sha256(text.read_bytes()).hexdigest()
    assert "30 tokens of a text" in tokenglass("inspect", str(tmp_path / "made")).stdout.decode()


def test_the_model_s_own_text_is_said_to_be_that(saved_checkpoint: Path, tmp_path: Path) -> None:
    done = tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "made"), *COMMAND, "--calibrate", "20")
    assert "20 tokens that the model wrote" in done.stdout.decode()
    plain = tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "plain"), *COMMAND, "--calibrate", "0")
    assert "calibrated" not in plain.stdout.decode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "int8", "--calibrate", "20"), "needs no text"),
        (("--format", "int8", "--calibrate-with", "TEXT"), "needs no text"),
        (("--format", "int4", "--calibrate", "0", "--calibrate-with", "TEXT"), "leave one out"),
        (("--format", "int4", "--text", "TEXT", "--calibrate-with", "TEXT"), "must be measured on another"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    saved_checkpoint: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("fox")
    named = [str(text) if option == "TEXT" else option for option in options]
    done = tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "made"), *named)
    assert_one_line_error(done, 2, message)
    assert not (tmp_path / "made").exists()


def test_a_text_that_is_empty_or_not_there_is_refused(saved_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for name, message in (("empty.txt", "has no text"), ("none.txt", "none.txt")):
        options = ("--calibrate-with", str(tmp_path / name))
        done = tokenglass("quantize", str(saved_checkpoint), str(tmp_path / "made"), *COMMAND, *options)
        assert done.returncode in (1, 2)
        assert message in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1
        assert not (tmp_path / "made").exists()

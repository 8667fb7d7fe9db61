"""Nonsense in, one clear line out."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shell import assert_one_line_error, generate, tokenglass

from tokenglass.model.checkpoint.store import bundled_folder


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A copy of the bundled model, to be damaged."""
    return Path(shutil.copytree(bundled_folder(), tmp_path / "broken"))


def run(model: Path) -> subprocess.CompletedProcess[bytes]:
    return generate("-m", str(model), "The fox", "-n", "2")


def edit_weights(model: Path, change) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors")


def edit_config(model: Path, **fields: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_missing_tensor_is_named(broken: Path) -> None:
    edit_weights(broken, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert_one_line_error(run(broken), 1, "missing", "model.layers.1.mlp.up_proj.weight")


def test_a_renamed_tensor_is_named_twice(broken: Path) -> None:
    edit_weights(broken, lambda tensors: tensors.update(other=tensors.pop("model.norm.weight")))
    assert_one_line_error(run(broken), 1, "missing: model.norm.weight", "unexpected: other")


def test_a_wrong_shape_is_told_with_both_shapes(broken: Path) -> None:
    size = json.loads((broken / "config.json").read_text())["hidden_size"]
    edit_weights(broken, lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))
    assert_one_line_error(run(broken), 1, f"model.norm.weight is [3], expected [{size}]")


def test_a_truncated_file_is_refused(broken: Path) -> None:
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert_one_line_error(run(broken), 1, "damaged or incomplete")


def test_a_corrupt_header_is_refused(broken: Path) -> None:
    path = broken / "model.safetensors"
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])
    assert_one_line_error(run(broken), 1, "damaged or incomplete")


def test_nan_weights_end_in_an_error_not_in_a_token(broken: Path) -> None:
    edit_weights(broken, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    assert_one_line_error(run(broken), 1, "NaN", "--dtype float32")


def test_an_unknown_model_type_is_named(broken: Path) -> None:
    edit_config(broken, model_type="mamba")
    assert_one_line_error(run(broken), 1, "model_type 'mamba'")


def test_an_option_that_would_change_the_numbers_is_named(broken: Path) -> None:
    edit_config(broken, rope_scaling={"rope_type": "ntk", "factor": 4.0})
    assert_one_line_error(run(broken), 1, "rope_scaling", "ntk")


def test_a_token_beyond_the_embedding_is_an_error_where_the_prompt_names_it(broken: Path) -> None:
    path = broken / "tokenizer.json"
    content = json.loads(path.read_text())
    extra = {"id": 4096, "content": "<|extra|>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"].append({**extra, **flags})
    path.write_text(json.dumps(content))
    assert run(broken).returncode == 0
    named = generate("-m", str(broken), "The <|extra|> fox", "-n", "2")
    assert_one_line_error(named, 2, "token 4,096", "ends at 4,095")


def test_a_broken_tokenizer_is_refused(broken: Path) -> None:
    (broken / "tokenizer.json").write_text("{}")
    assert_one_line_error(run(broken), 1, "tokenizer.json")


def test_a_tokenizer_that_makes_its_library_panic_is_one_line_too(broken: Path) -> None:
    path = broken / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    path.write_text(json.dumps(content))
    assert_one_line_error(run(broken), 1, "tokenizer.json")


def test_a_lora_adapter_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert_one_line_error(run(tmp_path), 1, "LoRA")


def test_a_folder_that_does_not_exist_is_named() -> None:
    assert_one_line_error(run(Path("/nonexistent/model")), 1, "/nonexistent/model")


def test_a_prompt_that_does_not_fit_is_told_with_the_counts() -> None:
    assert_one_line_error(generate("fox " * 1500, "-n", "2"), 2, "1,024", "--truncate")


@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_a_long_prompt_is_cut_where_that_is_asked_for(side: str) -> None:
    done = generate("--jsonl", "fox " * 1500, "-n", "2", "--truncate", side)
    run_line = json.loads(done.stdout.splitlines()[0])
    assert len(run_line["request"]["prompt_ids"]) == 1022
    assert run_line["request"]["prompt_ids"][0] == 0, "the start token stays"


def test_invalid_utf8_on_stdin_is_told_with_its_place() -> None:
    assert_one_line_error(generate(stdin=b"The \xff fox"), 2, "UTF-8", "byte 4")


def test_an_invalid_utf8_argument_is_refused() -> None:
    assert_one_line_error(generate(b"The \xff fox"), 2, "UTF-8")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--temperature", "-1", "x"), "--temperature"),
        (("--temperature", "nan", "x"), "temperature"),
        (("--top-p", "1.5", "x"), "--top-p"),
        (("--nonsense", "x"), "--nonsense"),
        (("-n", "0", "x"), "-n"),
        (("--view", "live", "x"), "terminal"),
        (("--jsonl", "--view", "plain", "x"), "--jsonl"),
        (("--prompt-file", "/nonexistent", "x"), "not both"),
        (("-", "-"), "only once"),
        (("--device", "cuda", "x"), "cuda"),
    ],
)
def test_a_bad_option_is_a_usage_error_of_one_line(arguments: tuple[str, ...], word: str) -> None:
    assert_one_line_error(generate(*arguments), 2, word)


def test_debug_shows_the_traceback() -> None:
    done = generate("-m", "/nonexistent", "--debug", "x")
    assert b"Traceback" in done.stderr
    assert done.returncode == 1


def test_an_unknown_command_is_a_usage_error() -> None:
    assert_one_line_error(tokenglass("fly"), 2, "fly")

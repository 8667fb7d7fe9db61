"""Pulling from the Hugging Face Hub, against a small stand-in on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hub_stand_in import COMMIT, Hub, serve
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, generate, tokenglass

from tokenglass.model.errors import StoreError
from tokenglass.model.importers.hub import check_listing, weight_files


@pytest.fixture
def hub(saved_checkpoint: Path) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in saved_checkpoint.iterdir()}
    unwanted = {"pytorch_model.bin": b"x", "modeling_fox.py": b"x", "README.md": b"x", "consolidated.safetensors": b"x"}
    with serve({**files, **unwanted, "onnx/model.onnx": b"x"}) as served:
        yield served


def environment(hub: Hub, home: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home / "hf"),
        "TOKENGLASS_HOME": str(home / "tg"),
        "PYTHONWARNINGS": "default",
    }


def test_a_pulled_model_runs_and_holds_no_program(hub: Hub, tmp_path: Path) -> None:
    surroundings = environment(hub, tmp_path)
    hub.files["additional_chat_templates/tool_use.jinja"] = b"{{ tools }}"
    hub.files["additional_chat_templates/tool_use.py"] = b"print()"
    done = tokenglass("pull", "org/fox", **surroundings)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    folder = tmp_path / "tg" / "models" / "org" / "fox"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "additional_chat_templates/tool_use.jinja",
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenglass.json"),
    }
    origin = json.loads((folder / "tokenglass.json").read_text())
    assert origin == {"source": "Hugging Face Hub: org/fox", "licence": "mit", "revision": COMMIT}
    assert generate("-m", "org/fox", "The fox", "-n", "2", **surroundings).returncode == 0
    asked = len(hub.asked)
    assert b"already there" in tokenglass("pull", "org/fox", **surroundings).stderr
    assert_one_line_error(tokenglass("pull", "org/fox", "--revision", "v2", **surroundings), 1, "models rm org/fox")
    assert len(hub.asked) == asked


def test_an_interrupted_pull_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    surroundings = environment(hub, tmp_path)
    tensors = safetensors.torch.load(hub.files["model.safetensors"])
    larger = {**tensors, "filler": torch.zeros(20 * 2**20, dtype=torch.uint8)}  # the library writes 10 MiB at a time
    hub.files["model.safetensors"] = safetensors.torch.save(larger)
    hub.silent_after = 15 * 2**20
    command = [SCRIPTS / "tokenglass", "pull", "org/fox"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**ENVIRONMENT, **surroundings}) as pulling:
        assert hub.half_sent.wait(60)
        wait_for_half(tmp_path)
        pulling.kill()
    assert b"org/fox" not in tokenglass("models", **surroundings).stdout
    hub.silent_after = None
    hub.asked.clear()
    done = tokenglass("pull", "org/fox", "--revision", "main", **surroundings)
    assert done.returncode == 0, done.stderr
    (weights,) = [asked for path, asked in hub.asked if path.endswith("model.safetensors")]
    assert weights.startswith("bytes="), "only what was missing is asked for"
    assert weights != "bytes=0-"
    folder = tmp_path / "tg" / "models" / "org" / "fox"
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_two_pulls_at_once_both_end_well(hub: Hub, tmp_path: Path) -> None:
    command, surroundings = [SCRIPTS / "tokenglass", "pull", "org/fox"], {**ENVIRONMENT, **environment(hub, tmp_path)}
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, env=surroundings) for _ in "12"]
    ends = [(process.communicate()[1], process.returncode) for process in both]
    assert [code for _, code in ends] == [0, 0], ends
    asked = [path for path, _ in hub.asked if path.endswith("model.safetensors")]
    assert len(asked) == 1, "one fetches, the other waits"
    models = tmp_path / "tg" / "models"
    assert (models / "org" / "fox" / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert list((models / ".pulling").iterdir()) == []


def wait_for_half(folder: Path) -> None:
    """Until some of the large file is on the disk."""
    for _ in range(300):
        if any(path.stat().st_size >= 10 * 2**20 for path in folder.rglob("*.part")):
            return
        time.sleep(0.1)
    pytest.fail("nothing was written")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("org/gated",), ("gated", "accept its terms", "hf auth login")),
        (("org/bear",), ("no model org/bear",)),
        (("org/fox", "--revision", "v9"), ("no revision 'v9'",)),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    arguments: tuple[str, ...], words: tuple[str, ...], hub: Hub, tmp_path: Path
) -> None:
    assert_one_line_error(tokenglass("pull", *arguments, **environment(hub, tmp_path)), 1, *words)
    assert not (tmp_path / "tg").exists()


def test_offline_is_one_line(hub: Hub, tmp_path: Path) -> None:
    surroundings = environment(hub, tmp_path)
    forbidden = tokenglass("pull", "org/fox", **{**surroundings, "HF_HUB_OFFLINE": "1"})
    assert_one_line_error(forbidden, 1, "HF_HUB_OFFLINE")
    unreachable = tokenglass("pull", "org/fox", **{**surroundings, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert_one_line_error(unreachable, 1, "cannot be reached")


def test_a_damaged_file_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    surroundings = environment(hub, tmp_path)
    assert tokenglass("pull", "org/fox", **surroundings).returncode == 0
    folder = tmp_path / "tg" / "models" / "org" / "fox"
    partial = tmp_path / "tg" / "models" / ".pulling" / f"org--fox-{COMMIT}"
    assert not partial.exists()
    partial.mkdir()
    (partial / "model.safetensors.part").write_bytes(b"not what the hub sends")
    shutil.rmtree(folder)
    assert_one_line_error(tokenglass("pull", "org/fox", **surroundings), 1, "arrived damaged; pull again")
    assert tokenglass("pull", "org/fox", **surroundings).returncode == 0


def test_a_family_that_cannot_run_is_refused_before_its_weights(hub: Hub, tmp_path: Path) -> None:
    hub.files["config.json"] = b'{"model_type": "mamba"}'
    assert_one_line_error(tokenglass("pull", "org/fox", **environment(hub, tmp_path)), 1, "mamba")
    assert not [path for path, _ in hub.asked if path.endswith(".safetensors")]


def test_the_index_decides_which_weights_are_fetched() -> None:
    sizes = dict.fromkeys(("a.safetensors", "b.safetensors", "consolidated.safetensors", "../c.safetensors"), 1)
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors", "z": "../c.safetensors"}}
    assert weight_files(sizes, index) == ["a.safetensors", "b.safetensors"]
    with pytest.raises(StoreError, match=r"no b.safetensors"):
        weight_files({"a.safetensors": 1}, index)
    with pytest.raises(StoreError, match=r"no model.safetensors .it has 'pytorch_model.bin'"):
        weight_files({"pytorch_model.bin": 1}, None)


def test_an_adapter_and_an_absurd_file_are_refused() -> None:
    with pytest.raises(StoreError, match="LoRA"):
        check_listing("org/fox", {"adapter_config.json": 1, "tokenizer.json": 1})
    with pytest.raises(StoreError, match="refused"):
        check_listing("org/fox", {"config.json": 10**12, "tokenizer.json": 1})

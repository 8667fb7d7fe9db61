"""Files of a stranger: only regular ones are read, never more than a limit, and what is wrong is one short line."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny
import torch
from closeness import assert_close
from shell import assert_one_line_error, tokenglass
from torch_parts import as_tensor, load_engine

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.fields import first_few, quote, shown_name
from tokenglass.model.errors import CheckpointError, ConfigError, TokenglassError, TokenizerError
from tokenglass.model.files import read_bytes, read_json
from tokenglass.model.loading import load_model

SMALL = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs FIFOs and /dev/zero")


@pytest.fixture
def folder(saved_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved_checkpoint, tmp_path / "model")


def error_of(folder: Path, *words: str) -> None:
    """Loading ends in one short line with these words, within seconds."""
    caught: list[BaseException] = []

    def load() -> None:
        try:
            load_model(folder, device="cpu")
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it waits for ever"
    (error,) = caught
    assert isinstance(error, TokenglassError), repr(error)
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 500 + 3 * len(str(folder)), str(error)
    for word in words:
        assert word in str(error)


@linux
@pytest.mark.parametrize("name", [*SMALL[:4], "model.safetensors", "model.safetensors.index.json"])
def test_a_fifo_in_a_checkpoint_is_refused_at_once(name: str, folder: Path) -> None:
    if name.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    error_of(folder, name, "not a regular file")


@linux
@pytest.mark.parametrize("name", [*SMALL[:4], "model.safetensors"])
def test_a_link_to_a_device_without_an_end_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/dev/zero")
    error_of(folder, name, "not a regular file")


@linux
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_or_a_loop_of_links_is_no_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    error_of(folder, name, "not a regular file")
    (folder / name).rmdir()
    (folder / name).symlink_to("loop")
    (folder / "loop").symlink_to(name)
    error_of(folder, "no model.safetensors" if name == "model.safetensors" else name)


@linux
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_file_of_terabytes_is_refused_without_reading_it(name: str, folder: Path) -> None:
    os.truncate(folder / name, 2**41)
    error_of(folder, name, "larger than")


@linux
def test_an_index_that_names_a_fifo_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "part.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part.safetensors"}}')
    error_of(folder, "not a regular file")


@linux
@pytest.mark.parametrize("command", [("inspect",), ("quantize",), ("import",)])
def test_a_fifo_given_to_a_command_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.gguf")
    target = [] if command == ("inspect",) else [str(tmp_path / "out")]
    assert_one_line_error(tokenglass(*command, str(tmp_path / "a.gguf"), *target), 1, "a.gguf")
    assert not (tmp_path / "out").exists()


def test_a_limit_is_kept_whatever_the_size_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 11)
    assert read_bytes(tmp_path / "a", 11) == b"x" * 11
    with pytest.raises(ConfigError, match="larger than 10 bytes, refused"):
        read_bytes(tmp_path / "a", 10)
    with pytest.raises(ConfigError, match="no such file"):
        read_bytes(tmp_path / "a\0b", 10)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "a number of too many digits"),
        (b" " * (2**20 + 1), "larger than 1,048,576 bytes"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
    ],
)
def test_json_that_is_too_much_is_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as error:
        read_json(tmp_path / "config.json")
    assert len(str(error.value)) < 200 + len(str(tmp_path))


def test_of_a_key_that_is_there_twice_the_last_counts_as_in_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": 1, "a": 2}')
    assert read_json(tmp_path / "config.json") == {"a": 2}


# Messages


def test_what_a_file_says_is_short_and_escaped_in_a_message() -> None:
    deep: Any = "x" * 10**6
    for _ in range(50):
        deep = [deep] * 50
    for value in (deep, {"\x1b]0;a\x07" * 1000: deep}, "\u202e\ud800" * 1000, 10**4000):
        assert len(quote(value)) <= 100
        assert quote(value).isprintable()
    assert shown_name("model.norm.weight") == "model.norm.weight"
    assert shown_name("a\x1b[31m") == r"'a\x1b[31m'"
    assert len(shown_name("a" * 10**6)) <= 100
    assert first_few(["a", "b", "c", "d", "e"], 2) == "a, b and 3 more"


@pytest.mark.parametrize("value", ["v" * 100_000, "\x1b]0;title\x07" * 1000, "\u202eabc"])
def test_what_a_library_quotes_of_a_file_is_short_and_escaped(value: str, folder: Path) -> None:
    tiny.edit_json(folder / "tokenizer.json", version=value)
    with pytest.raises(TokenizerError) as error:
        load_model(folder)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400 + len(str(folder))


@pytest.mark.parametrize("name", ["n" * 100_000, "\x1b]0;title\x07" * 1000])
def test_a_tensor_of_a_huge_name_is_a_short_note(name: str, folder: Path) -> None:
    edit(folder, lambda tensors: tensors.update({name: torch.zeros(1)}))
    (note,) = load_model(folder).notes
    assert "not used" in note
    assert note.isprintable()
    assert len(note) < 200


# Weights


def edit(folder: Path, change: Any) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def write_header(folder: Path, header: bytes, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)


@pytest.mark.parametrize(
    ("entries", "nbytes"),
    [
        ({"a": ([8], [0, 32]), "b": ([8], [0, 32])}, 32),  # one over the other
        ({"a": ([8], [0, 32]), "b": ([8], [16, 48])}, 48),
        ({"a": ([8], [0, 32]), "b": ([8], [40, 72])}, 72),  # a hole
        ({"a": ([8], [0, 32])}, 64),  # more than the tensors
        ({"a\ud800": ([1], [0, 4])}, 4),
        ({"a": ([1.0], [0, 4])}, 4),
        ({"a": ([True], [0, 4])}, 4),
        ({"a": ({}, [0, 4])}, 4),
        ({"a": ([1], [4, 0])}, 4),
    ],
)
def test_tensors_fill_the_file_one_behind_the_other(entries: dict[str, Any], nbytes: int, folder: Path) -> None:
    """The library refuses each of these too, so a file means one thing."""
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": offsets} for name, (shape, offsets) in entries.items()
    }
    write_header(folder, json.dumps(header).encode(), bytes(nbytes))
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        Checkpoint.open(folder)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.torch.load_file(folder / "model.safetensors")


def test_a_header_is_bounded_by_the_tensors_that_the_config_can_have(folder: Path) -> None:
    """A million tensors, for two layers: refused before they are read."""
    entries = {f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(100_000)}
    write_header(folder, json.dumps(entries).encode(), b"")
    error_of(folder, "more tensors than the model can have")


@pytest.mark.parametrize("padding", [1, 2, 3, 5])
def test_data_that_begins_at_an_odd_byte_is_read_all_the_same(padding: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    before = load_engine(Checkpoint.open(folder), dtype="float32", device="cpu").model.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    file.write_bytes(
        (length + padding).to_bytes(8, "little") + content[8 : 8 + length] + b" " * padding + content[8 + length :]
    )
    loaded = load_model(folder, backend="auto")
    after = load_engine(Checkpoint.open(folder), dtype="float32", device="cpu").model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        expected = as_tensor(load_engine(Checkpoint.open(folder), dtype="float32", device="cpu").forward(ids, None))
    assert_close(as_tensor(loaded.engine.forward(ids, None)), expected)


def test_a_single_file_comes_before_a_stale_index_as_in_transformers(folder: Path) -> None:
    import transformers  # noqa: PLC0415  (takes seconds)

    stale = {"weight_map": {EMBEDDING: "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(stale))
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder).state_dict()
    ours = load_engine(Checkpoint.open(folder), dtype="float32", device="cpu").model.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    folder = tiny.save_llama(tmp_path / "tied", tie_word_embeddings=True)
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def test_a_tied_embedding_that_is_stored_once_is_compared_with_nothing(tied: Path) -> None:
    edit(tied, lambda tensors: tensors[EMBEDDING][7].fill_(float("nan")))
    weights = load_engine(Checkpoint.open(tied), dtype="float32", device="cpu").model.state_dict()
    assert weights[HEAD].data_ptr() == weights[EMBEDDING].data_ptr()


def test_a_tied_embedding_that_is_stored_twice_is_compared_by_its_bytes(tied: Path) -> None:
    def twice(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EMBEDDING][7].fill_(float("nan"))
        tensors[HEAD] = tensors[EMBEDDING].clone()

    edit(tied, twice)
    assert load_model(tied).notes == ()
    edit(tied, lambda tensors: tensors[HEAD][8].fill_(1.0))
    assert "the weights hold two" in load_model(tied).notes[0]

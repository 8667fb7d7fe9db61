"""Weights that do not fit, or are damaged, are refused in one line; nothing is ever randomly initialised."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import tiny
import torch
from torch import Tensor
from torch_parts import as_tensor, load_engine

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.errors import CheckpointError, ConfigError, TokenglassError

HEAD, NORM = "lm_head.weight", "model.norm.weight"
Edit = Callable[[dict[str, Tensor]], object]


@pytest.fixture
def folder(saved_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return shutil.copytree(saved_checkpoint, tmp_path / "model")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    folder = tiny.save_llama(tmp_path / "sharded", max_shard_size="50KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def load(folder: Path) -> object:
    return load_engine(Checkpoint.open(folder), dtype="float32", device="cpu")


def refusal(folder: Path, error: type[TokenglassError] = CheckpointError) -> str:
    """The one line that says why this folder cannot be loaded."""
    with pytest.raises(error) as caught:
        load(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def edit_weights(folder: Path, edit: Edit) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    edit(tensors)
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop(NORM), f"missing: {NORM}"),
        (lambda tensors: tensors.pop(HEAD), f"missing: {HEAD}"),
        (lambda tensors: tensors.update({"other": tensors.pop(NORM)}), f"missing: {NORM}; unexpected: other"),
        (lambda tensors: tensors.update({"a\n\x1b[31m": tensors.pop(NORM)}), "unexpected: 'a\\n\\x1b[31m'"),
        (lambda tensors: tensors.update({NORM: torch.ones(31)}), f"wrong shape: {NORM} is [31], expected [32]"),
        (lambda tensors: tensors.update({HEAD: tensors[HEAD].T}), f"{HEAD} is [32, 512], expected [512, 32]"),
        (lambda tensors: tensors.update({NORM: torch.ones(32).long()}), f"unsupported dtype: {NORM} is I64"),
        (lambda tensors: tensors.clear(), "2 layers, but only 0 tensors"),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_listed(edit: Edit, message: str, folder: Path) -> None:
    edit_weights(folder, edit)
    assert message in refusal(folder)


def test_a_table_of_rotary_frequencies_as_old_files_hold_is_left_aside(folder: Path) -> None:
    edit_weights(
        folder, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    )
    load(folder)


@pytest.mark.parametrize("length", [0, 4, 100, -1000, -1])
def test_a_truncated_file_is_refused(length: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    assert f"{file}: damaged or incomplete" in refusal(folder)


@pytest.mark.parametrize(
    "start",
    [
        b"\xff" * 8,  # a header of 16 exbibytes
        (2**40).to_bytes(8, "little") + b"{",
        (12).to_bytes(8, "little") + b"not json at all",
        (2).to_bytes(8, "little") + b"[]",
        (100_000).to_bytes(8, "little") + b'{"a":' * 20_000,
    ],
)
def test_a_corrupt_header_is_refused(start: bytes, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(start + file.read_bytes()[len(start) :])
    assert f"{file}: damaged or incomplete" in refusal(folder)


@pytest.mark.parametrize(
    "info",
    [
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**62]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
    ],
)
def test_a_header_that_lies_about_its_tensors_is_refused(info: dict[str, object], folder: Path) -> None:
    header = json.dumps({NORM: info}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    refusal(folder)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"{shard}: no such file; the index names it" in refusal(sharded)


def test_a_shard_that_lacks_a_tensor_is_named(sharded: Path) -> None:
    first, second = sorted(sharded.glob("model-*.safetensors"))[:2]
    shutil.copy(first, second)
    assert f"{second}: the index places" in refusal(sharded)


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", 7, None])
def test_an_index_that_points_out_of_the_folder_is_refused(file: object, sharded: Path) -> None:
    tiny.edit_json(sharded / "model.safetensors.index.json", weight_map={"model.norm\n.weight": file})
    assert "which is not a file of this folder" in refusal(sharded)


@pytest.mark.parametrize("file", ["a\0b", "x" * 5000])
def test_an_index_with_an_impossible_file_name_is_refused(file: str, sharded: Path) -> None:
    tiny.edit_json(sharded / "model.safetensors.index.json", weight_map={NORM: file})
    refusal(sharded)


@pytest.mark.parametrize("weight_map", [{}, [], "x"])
def test_an_index_without_a_weight_map_is_refused(weight_map: object, sharded: Path) -> None:
    tiny.edit_json(sharded / "model.safetensors.index.json", weight_map=weight_map)
    assert "no weight_map" in refusal(sharded)


def test_a_lora_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "a LoRA adapter, not a whole model; give it with --lora" in refusal(tmp_path)


def test_what_is_not_a_checkpoint_folder_is_refused(folder: Path) -> None:
    assert "no such folder" in refusal(folder / "nowhere")
    assert "is a file" in refusal(folder / "config.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "it holds pytorch_model.bin, which this program does not read" in refusal(folder)


@pytest.mark.parametrize(
    ("field", "size"),
    [("vocab_size", 2**24), ("num_hidden_layers", 1024), ("intermediate_size", 2**24), ("num_attention_heads", 2**20)],
)
def test_a_config_much_larger_than_its_weights_is_refused_without_memory(field: str, size: int, folder: Path) -> None:
    """The largest sizes that a config may name; the weights alone would take terabytes."""
    tiny.edit_json(folder / "config.json", **{field: size})
    assert "the weights do not fit config.json" in refusal(folder)


def test_sizes_beyond_any_model_are_refused_by_the_config(folder: Path) -> None:
    tiny.edit_json(folder / "config.json", num_hidden_layers=2**24)
    assert "num_hidden_layers is 16777216" in refusal(folder, ConfigError)


def test_a_head_that_differs_from_the_embedding_it_is_tied_to_is_kept_and_noted(
    saved_checkpoint: Path, folder: Path
) -> None:
    """As in transformers: the weights are believed, not the config."""
    tiny.edit_json(folder / "config.json", tie_word_embeddings=True)
    ids = torch.arange(20)[None]
    untied, tied = (load_engine(Checkpoint.open(f), dtype="float32", device="cpu") for f in (saved_checkpoint, folder))
    assert torch.equal(as_tensor(tied.forward(ids, None)), as_tensor(untied.forward(ids, None)))
    assert "the weights hold two" in " ".join(tied.notes)
    edit_weights(folder, lambda tensors: tensors.update({HEAD: tensors["model.embed_tokens.weight"].clone()}))
    assert load_engine(Checkpoint.open(folder), dtype="float32", device="cpu").notes == ()


def test_a_tied_model_may_hold_its_head_alone(folder: Path) -> None:
    tiny.edit_json(folder / "config.json", tie_word_embeddings=True)
    edit_weights(folder, lambda tensors: tensors.pop("model.embed_tokens.weight"))
    model = load_engine(Checkpoint.open(folder), dtype="float32", device="cpu").model
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_weights_without_a_place_in_the_model_are_noted(folder: Path) -> None:
    names = [*(f"v_head.{number}" for number in range(5)), "a\x1b]0;x\x07"]
    edit_weights(folder, lambda tensors: tensors.update({name: torch.zeros(2) for name in names}))
    (note,) = load_engine(Checkpoint.open(folder), dtype="float32", device="cpu").notes
    assert "not used: " in note
    assert "v_head.0" in note
    assert "and 2 more" in note
    assert note.isprintable()


def test_a_file_that_names_no_dtype_has_that_of_its_weights(tmp_path: Path) -> None:
    folder = tiny.save_llama(tmp_path, dtype=torch.bfloat16)
    tiny.edit_json(folder / "config.json", dtype=None)
    assert Checkpoint.open(folder).config.dtype == "bfloat16"


def test_every_weight_comes_from_the_file(saved_checkpoint: Path) -> None:
    engine = load_engine(Checkpoint.open(saved_checkpoint), dtype="float32", device="cpu")
    stored = safetensors.torch.load_file(saved_checkpoint / "model.safetensors")
    loaded = engine.model.state_dict()
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_and_cache_take_the_dtype_asked_for(dtype: str, saved_checkpoint: Path) -> None:
    engine = load_engine(Checkpoint.open(saved_checkpoint), dtype=dtype, device="cpu")
    assert {str(parameter.dtype) for parameter in engine.model.parameters()} == {f"torch.{dtype}"}
    assert str(engine.new_cache().rows[0].layer(0)[0].dtype) == f"torch.{dtype}"


def test_opening_reads_headers_only(folder: Path) -> None:
    """Data that is not there cannot be read: the file is a header over a hole."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    with file.open("wb") as opened:
        opened.write(content[:length])
        opened.truncate(len(content))
    checkpoint = Checkpoint.open(folder)
    stored = safetensors.torch.load(content)
    assert {info.name: info.shape for info in checkpoint.tensors} == {n: tuple(t.shape) for n, t in stored.items()}
    assert checkpoint.num_parameters == sum(tensor.numel() for tensor in stored.values())
    assert checkpoint.nbytes == len(content) - length
    assert checkpoint.dtypes == {"float32": checkpoint.num_parameters}


def test_sharded_and_single_files_hold_the_same_tensors(sharded: Path, saved_checkpoint: Path) -> None:
    one, many = Checkpoint.open(saved_checkpoint), Checkpoint.open(sharded)
    assert {(i.name, i.shape) for i in one.tensors} == {(i.name, i.shape) for i in many.tensors}


def test_a_changed_weight_changes_the_fingerprint(folder: Path, saved_checkpoint: Path) -> None:
    assert Checkpoint.open(folder).fingerprint == Checkpoint.open(saved_checkpoint).fingerprint
    edit_weights(folder, lambda tensors: tensors[HEAD].add_(1))
    assert Checkpoint.open(folder).fingerprint != Checkpoint.open(saved_checkpoint).fingerprint

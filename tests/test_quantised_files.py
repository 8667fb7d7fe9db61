"""8- and 4-bit weights in files: what is stored, what is copied, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families import GPT2, SIZES, save
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch_parts import as_tensor, quantize_tensor

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised import Int8Weight
from tokenglass.model.checkpoint.quantised_checkpoint import quantize_checkpoint
from tokenglass.model.checkpoint.quantised_layout import CALIBRATION_KEY, FORMAT_KEY, SOURCE_KEY, VERSION, VERSION_KEY
from tokenglass.model.checkpoint.shards import SINGLE
from tokenglass.model.errors import CheckpointError, ParameterError
from tokenglass.model.loading import load_model, quantizer

EIGHT_BITS = {  # of int4's
    "model.embed_tokens.weight",
    "lm_head.weight",
    *(f"model.layers.{layer}.self_attn.v_proj.weight" for layer in range(2)),
}


def quantise(source: Path, folder: Path, kind: Any) -> Path:
    for _ in quantize_checkpoint(Checkpoint.open(source), folder, quantizer(kind, None, 1)):
        pass
    return folder


def logits(folder: Path, **settings: Any) -> Tensor:
    engine = load_model(folder, device="cpu", **settings).engine
    return as_tensor(engine.forward([[5, 9, 2, 40]], None, last=None))


@pytest.fixture(params=["int8", "int4"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(saved_checkpoint: Path, tmp_path: Path, kind: str) -> Path:
    """The tiny checkpoint, quantised and stored."""
    return quantise(saved_checkpoint, tmp_path / "stored", kind)


def test_what_is_stored_computes_what_was_made_at_load(saved_checkpoint: Path, folder: Path, kind: str) -> None:
    assert torch.equal(logits(folder), logits(saved_checkpoint, quantize=kind))
    assert torch.equal(logits(folder, quantize=kind), logits(folder))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi3"])
def test_families_whose_files_are_laid_out_otherwise(family: str, kind: str, tmp_path: Path) -> None:
    sizes = {**GPT2, "n_embd": 40} if family == "gpt2" else {**SIZES, "hidden_size": 40, "intermediate_size": 72}
    source = tmp_path / "source"
    save(source, family, sizes).to(torch.bfloat16).save_pretrained(source)
    assert torch.equal(logits(quantise(source, tmp_path / "stored", kind)), logits(source, quantize=kind))


def stored_bytes(shape: tuple[int, ...], kind: str) -> int:
    """What the layout takes for a weight of this shape: whole panels, and rows of int8 filled up to 64 and a factor."""
    if len(shape) == 1:
        return 4 * shape[0]
    (out, size), panels, groups = shape, -(-shape[0] // 16), -(-shape[1] // 32)
    if kind == "int8":
        return panels * 16 * -(-size // 64) * (64 + 1) + 4 * out
    return panels * groups * 16 * (16 + 2 + 2)


def test_the_file_says_what_it_is_and_what_it_was_made_from(saved_checkpoint: Path, folder: Path, kind: str) -> None:
    source, stored = Checkpoint.open(saved_checkpoint), Checkpoint.open(folder)
    with safe_open(folder / SINGLE, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata[FORMAT_KEY] == kind
    assert metadata[VERSION_KEY] == VERSION
    assert metadata[SOURCE_KEY] == source.fingerprint
    assert stored.quantisation is not None
    assert stored.quantisation.format == kind
    assert stored.num_parameters == source.num_parameters
    kinds = {info.name: "int8" if info.name in EIGHT_BITS else kind for info in source.tensors}
    sizes = {"float32": 0, "int8": 0, "int4": 0}
    for info in source.tensors:
        sizes[kinds[info.name] if len(info.shape) == 2 else "float32"] += info.size
    assert stored.dtypes == {name: size for name, size in sizes.items() if size}
    assert stored.nbytes == sum(stored_bytes(info.shape, kinds[info.name]) for info in source.tensors)
    assert (
        source.nbytes_as(kind)
        == sum(info.size * (5 if kinds[info.name] == "int4" else 8) for info in source.tensors) // 8
    )  # scales of int8 apart
    assert stored_bytes((64, 576), "int8") < 0.26 * 4 * 64 * 576
    assert stored_bytes((64, 576), "int4") < 0.16 * 4 * 64 * 576
    assert stored.fingerprint != source.fingerprint


def test_everything_but_the_weights_is_copied(saved_checkpoint: Path, folder: Path) -> None:
    names = {file.name for file in saved_checkpoint.iterdir()}
    assert {file.name for file in folder.iterdir()} == names
    for name in names - {SINGLE}:
        assert (folder / name).read_bytes() == (saved_checkpoint / name).read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is mapped")
def test_stored_weights_are_mapped_not_copied(folder: Path) -> None:
    loaded = load_model(folder, device="cpu")
    spans = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line
    ]
    weight = loaded.engine.model.lm_head.weight
    address = (weight.values if isinstance(weight, Int8Weight) else weight.packed).data_ptr()
    assert any(int(begin, 16) <= address < int(end, 16) for begin, end in spans)


def test_a_safetensors_reader_finds_every_tensor_where_the_header_says(folder: Path) -> None:
    loaded = load_model(folder, device="cpu").engine.model
    head = loaded.lm_head.weight
    tensors = load_file(folder / SINGLE)
    parts = ("values", "scales", "factors") if isinstance(head, Int8Weight) else ("packed", "scales", "offsets")
    for part in parts:
        assert torch.equal(tensors[f"lm_head.weight.{part}"], getattr(head, part))


def test_nothing_is_left_where_quantising_fails(saved_checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(saved_checkpoint, tmp_path / "source")
    tensors = load_file(source / SINGLE)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, source / SINGLE)
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj: .*not a number"):
        quantise(source, tmp_path / "made", "int8")
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


def rewrite(folder: Path, change: Any) -> None:
    """Let `change` edit the tensors and the metadata of a stored model."""
    with safe_open(folder / SINGLE, framework="pt") as opened:
        metadata = dict(opened.metadata())
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / SINGLE).items()}
    change(tensors, metadata)
    save_file(tensors, folder / SINGLE, metadata)


SCALES = "model.layers.0.mlp.up_proj.weight.scales"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, _: tensors.pop(SCALES), f"missing: {SCALES}"),
        (lambda tensors, _: tensors.update(extra=torch.ones(1)), "unexpected: extra"),
        (lambda tensors, _: tensors.update({SCALES: tensors[SCALES][:-1].clone()}), f"wrong shape: {SCALES} is"),
        (lambda tensors, _: tensors.update({SCALES: tensors[SCALES].double()}), f"unsupported dtype: {SCALES} is F64"),
        (
            lambda tensors, _: tensors.update({SCALES: tensors[SCALES].bfloat16()}),
            f"unsupported dtype: {SCALES} is BF16",
        ),
        (lambda _, metadata: metadata.update({FORMAT_KEY: "int3"}), "quantised to 'int3', which is not known"),
        (lambda _, metadata: metadata.update({FORMAT_KEY: "a\nb"}), r"quantised to 'a\nb', which is not known"),
        (lambda _, metadata: metadata.update({VERSION_KEY: "1"}), "version '1' of the layout"),
        (lambda _, metadata: metadata.update({CALIBRATION_KEY: "9 tokens of a\nb"}), "its calibration"),
        (lambda _, metadata: metadata.pop(FORMAT_KEY), "unexpected: "),
    ],
)
def test_a_file_that_lies_is_refused_in_one_line(folder: Path, change: Any, message: str) -> None:
    rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, device="cpu")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["int8"])
def test_a_file_from_before_there_were_factors_is_read(folder: Path, kind: str) -> None:
    def change(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        for name in [name for name in tensors if name.endswith(".factors")]:
            del tensors[name]
            tensors[name.replace("factors", "scales")] *= 128
        metadata[VERSION_KEY] = "2"

    rewrite(folder, change)
    engines = [load_model(folder, backend=backend, cache_dtype="float32").engine for backend in ("native", "torch")]
    ours, theirs = (torch.as_tensor(engine.forward([range(40)], None, last=None)[0]) for engine in engines)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3 * float(theirs.abs().max()))


@pytest.mark.parametrize("kind", ["int4"])
def test_a_file_from_before_int4_had_matrices_of_int8_is_read(saved_checkpoint: Path, folder: Path, kind: str) -> None:
    originals = load_file(saved_checkpoint / SINGLE)

    def change(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        for name in EIGHT_BITS:
            for part in ("values", "scales", "factors"):
                del tensors[f"{name}.{part}"]
            parts = quantize_tensor(originals[name], "int4").parts
            tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
        metadata[VERSION_KEY] = "4"

    rewrite(folder, change)
    engines = [load_model(folder, backend=backend, cache_dtype="float32").engine for backend in ("native", "torch")]
    ours, theirs = (torch.as_tensor(engine.forward([range(40)], None, last=None)[0]) for engine in engines)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3 * float(theirs.abs().max()))
    assert Checkpoint.open(folder).dtypes.keys() == {"int4", "float32"}


def test_one_format_stored_as_the_other_is_refused(folder: Path, kind: str) -> None:
    rewrite(folder, lambda _, metadata: metadata.update({FORMAT_KEY: "int8" if kind == "int4" else "int4"}))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_model(folder, device="cpu")


def test_names_of_parts_on_strange_shapes_are_only_unexpected(folder: Path) -> None:
    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        tensors |= {"packed": torch.ones(()), "weight.packed": torch.ones(()), "x.weight.values": torch.ones(2, 2, 2)}

    rewrite(folder, change)
    assert Checkpoint.open(folder).num_parameters > 0
    with pytest.raises(CheckpointError, match="unexpected"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("cut", [100, 10_000])
def test_a_file_cut_short_is_refused(folder: Path, cut: int) -> None:
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[:-cut])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        load_model(folder, device="cpu")


def test_layers_beyond_what_the_file_holds_are_refused_before_they_are_built(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 900, "layer_types": None}))
    with pytest.raises(CheckpointError, match="900 layers"):
        load_model(folder, device="cpu")


def test_another_format_than_the_stored_one_and_a_dtype_are_refused(folder: Path, kind: str) -> None:
    other: Any = "int8" if kind == "int4" else "int4"
    with pytest.raises(ParameterError, match=f"is stored as {kind}"):
        load_model(folder, device="cpu", quantize=other)
    with pytest.raises(ParameterError, match="float32"):
        load_model(folder, device="cpu", dtype="bfloat16")
    with pytest.raises(CheckpointError, match="quantised already"):
        quantise(folder, folder.parent / "again", kind)

"""import --keep: 4-bit matrices of a GGUF file stay as they are, and the rest is what it would be without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import pytest
import tiny
from families import save
from shell import assert_one_line_error, generate, tokenglass
from test_gguf_families import CASES
from tiny_gguf import TYPES, random_blocks, write_gguf

from tokenglass.model.checkpoint.arrays import BFLOAT16, to_float32
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.formats.ggml import READERS
from tokenglass.model.checkpoint.quantised import Int4Weight
from tokenglass.model.checkpoint.weights import Weights, read_weights
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.loading import load_model
from tokenglass.model.progress import finish

WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "num_hidden_layers": 2}  # rows of whole blocks
WIDE_GPT2 = {**CASES["gpt2"][1], "n_embd": 256, "n_layer": 2}
VALUES = {"linear_value_head_dim": 128}  # two heads in a block of Q4_K, four groups in a head
KEPT = [TYPES.Q4_0, TYPES.Q4_1, TYPES.Q4_K]


def by_name(kind: Any) -> str:
    return str(kind.name)


def write(folder: Path, quantised: Any, name: str = "llama") -> Path:
    family, options = CASES[name]
    more = {name: size for name, size in {"moe_intermediate_size": 256, **VALUES}.items() if name in options}
    save(folder / "original", family, WIDE_GPT2 if family == "gpt2" else {**options, **WIDE, **more})
    return write_gguf(folder / "a.gguf", folder / "original", quantised=quantised)


def weights_of(path: Path, **options: Any) -> tuple[Weights, str]:
    """What is read of an import, and what it said."""
    folder = path.parent / f"imported{len([*path.parent.iterdir()])}"
    notes = finish(import_gguf(path, folder, **options))
    return finish(read_weights(Checkpoint.open(folder), dtype="float32")).weights, notes


@pytest.mark.parametrize("kind", KEPT, ids=by_name)
@pytest.mark.parametrize(
    "name",
    ["llama", "qwen3", "gemma3_text", "phi3", "gpt2", "gpt_neox", "glm4", "cohere2", "qwen3_moe", "gpt_oss", "qwen3_5"],
)
def test_every_matrix_is_kept_as_the_gguf_library_reads_it(name: str, kind: Any, tmp_path: Path) -> None:
    """To the bit; Q4_K's scales and offsets to half a unit of float16 each, whatever order a family's rows have."""
    path = write(tmp_path, kind, name)
    (kept, notes), (plain, _) = weights_of(path, keep=True), weights_of(path)
    matrices = {name for name, weight in kept.items() if isinstance(weight, Int4Weight)}
    blueprint = Checkpoint.open(next(tmp_path.glob("imported*"))).blueprint
    assert matrices == blueprint.quantisable
    assert notes.startswith(f"{len(matrices)} of {len(matrices)} matrices kept as int4 ({kind.name}")
    for matrix in matrices:
        weight, expected = kept[matrix], plain[matrix]
        assert isinstance(weight, Int4Weight)
        assert isinstance(expected, np.ndarray)
        if kind != TYPES.Q4_K:
            assert np.array_equal(weight.dequantize(), expected), matrix
            continue
        offsets = replace(weight, packed=weight.packed * 0).dequantize()
        most = (np.abs(weight.dequantize() - offsets) + np.abs(offsets)) * 2.0**-11 * (1 + 2.0**-8)
        assert (np.abs(weight.dequantize() - expected) <= most).all(), matrix
    for other in kept.keys() - matrices:
        assert np.array_equal(kept[other], plain[other]), other


@pytest.mark.parametrize("kind", KEPT, ids=by_name)
def test_blocks_are_read_as_the_gguf_library_reads_them(kind: Any) -> None:
    """Any nibbles and any scales, but for those that are no numbers."""
    blocks = random_blocks(kind, 37, 1024)
    length = gguf.GGML_QUANT_SIZES[kind][1]
    parts = blocks.reshape(37, -1, length)
    for at in (0,) if kind == TYPES.Q4_0 else (0, 2):
        parts[..., at + 1] &= 0xBF  # an exponent below 16
    expected = gguf.dequantize(blocks, kind)
    matrix = READERS[kind.name](parts)
    assert matrix.exact == "int4"
    if kind == TYPES.Q4_K:
        np.testing.assert_allclose(
            matrix.to_exact().dequantize(), expected, rtol=0, atol=2.0**-9 * np.abs(expected).max()
        )
    else:
        assert np.array_equal(matrix.to_exact().dequantize(), expected)
    assert np.array_equal(matrix.to_exact().dequantize(), matrix.numbers("float32"))


def test_a_scale_that_float16_does_not_hold_eight_times_is_not_kept() -> None:
    blocks = np.zeros((16, 1, 18), np.uint8)
    blocks[..., :2] = np.array([8188], np.float16).view(np.uint8)
    assert READERS["Q4_0"](blocks).exact == "int4"
    blocks[..., :2] = np.array([8192], np.float16).view(np.uint8)
    assert READERS["Q4_0"](blocks).exact is None


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("kind", [TYPES.Q4_1, TYPES.Q4_K], ids=by_name)
def test_logits_are_those_of_the_widened_weights(
    kind: Any, backend: Literal["native", "torch"], tmp_path: Path
) -> None:
    """Some matrices are not kept: kernels that take them side by side may have two kinds."""
    path = write(tmp_path, some_other_types(kind))
    finish(import_gguf(path, tmp_path / "kept", keep=True))
    finish(import_gguf(path, tmp_path / "plain"))
    ids = [[*range(1, 60)]]
    packed_engine, plain = (
        load_model(tmp_path / name, cache_dtype="float32", device="cpu", backend=backend).engine.forward(
            ids, None, last=None
        )[0]
        for name in ("kept", "plain")
    )
    bound = 1e-3 if kind == TYPES.Q4_1 else 1e-2  # activations of 16 bits; scales of 11 bits
    assert np.abs(packed_engine - plain).max() <= bound * np.abs(plain).max()


def some_other_types(kind: Any) -> Callable[[str], Any]:
    """As llama.cpp's mixes have them: the head, values and one MLP in more bits."""
    others = {"token_embd.weight": TYPES.Q8_0, "blk.0.attn_v.weight": TYPES.Q6_K, "blk.1.ffn_up.weight": TYPES.BF16}
    return lambda name: others.get(name, kind)


def test_what_is_not_kept_is_said_in_one_line(tmp_path: Path) -> None:
    """A gate is not kept where what it gates is not."""
    path = write(tmp_path, some_other_types(TYPES.Q4_K))
    weights, notes = weights_of(path, keep=True)
    assert notes == (
        "11 of 15 matrices kept as int4 (Q4_K, its scales rounded to float16); "
        "BF16 is bfloat16; Q4_K became float32; Q6_K became float32; Q8_0 became float32"
    )
    wide = {name for name, weight in weights.items() if not isinstance(weight, Int4Weight) and weight.ndim == 2}
    assert wide == {
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.1.mlp.gate_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
    }
    assert isinstance(weights["model.layers.1.mlp.up_proj.weight"], np.ndarray)
    assert weights["model.layers.1.mlp.up_proj.weight"].dtype == BFLOAT16


def test_the_rest_may_be_bfloat16(tmp_path: Path) -> None:
    path = write(tmp_path, some_other_types(TYPES.Q4_0))
    (kept, notes), (plain, _) = weights_of(path, keep=True, dtype="bfloat16"), weights_of(path)
    assert notes.endswith("BF16 is bfloat16; Q4_0 became bfloat16; Q6_K became bfloat16; Q8_0 became bfloat16")
    embedding, expected = kept["model.embed_tokens.weight"], plain["model.embed_tokens.weight"]
    assert isinstance(embedding, np.ndarray)
    assert isinstance(expected, np.ndarray)
    np.testing.assert_allclose(to_float32(embedding), expected, rtol=2.0**-8)
    engines = [
        load_model(next(tmp_path.glob("imported*")), cache_dtype="float32", device="cpu", backend=b).engine
        for b in ("native", "torch")
    ]
    native, torch_ = (engine.forward([[*range(1, 40)]], None, last=None)[0] for engine in engines)
    assert np.abs(native - torch_).max() <= 1e-3 * np.abs(torch_).max()


def test_where_nothing_can_be_kept_the_folder_is_an_ordinary_one(tmp_path: Path) -> None:
    path = write(tmp_path, TYPES.Q8_0)
    notes = finish(import_gguf(path, tmp_path / "kept", keep=True))
    assert notes == "0 of 15 matrices kept as int4; Q8_0 became float32"
    assert Checkpoint.open(tmp_path / "kept").quantisation is None


def test_in_the_shell(tmp_path: Path) -> None:
    path, folder = write(tmp_path, some_other_types(TYPES.Q4_1)), tmp_path / "kept"
    done = tokenglass("import", str(path), str(folder), "--keep")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"; 11 of 15 matrices kept as int4 (Q4_1); BF16 is bfloat16" in done.stderr
    assert done.stderr.count(b"\n") == 1
    facts = json.loads(tokenglass("inspect", str(folder), "--json").stdout)
    assert facts["dtypes"].keys() == {"float32", "bfloat16", "int4"}
    told = generate("-m", str(folder), "The fox", "-n", "5", "--temperature", "0")
    assert told.returncode == 0, told.stderr
    refused = tokenglass("import", str(path), str(tmp_path / "other"), "--keep", "--dtype", "float16")
    assert_one_line_error(refused, 2, "--dtype float16 is not for --keep")
    assert not (tmp_path / "other").exists()


def test_a_kept_model_without_one_of_its_parts_is_refused(tmp_path: Path) -> None:
    """In one line, as a quantised one is."""
    path, folder = write(tmp_path, TYPES.Q4_1), tmp_path / "kept"
    finish(import_gguf(path, folder, keep=True))
    tiny.edit_json(folder / "config.json", intermediate_size=256)
    assert_one_line_error(generate("-m", str(folder), "fox", "-n", "2"), 1, "do not fit config.json")

"""Quantised releases: every matrix is what the library that packed it says, and both engines write its text."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import releases
import safetensors.torch
import tiny
import torch
from families import CASES, save
from packers import pack_mlx_floats
from releases import RELEASES, SAVERS, Release, save_llama, save_release
from shell import generate, tokenglass
from test_lora import adapter as lora_adapter
from torch import Tensor
from torch_parts import as_tensor

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.formats.coded import CHUNK
from tokenglass.model.checkpoint.quantised import Int4Weight, Int8Weight
from tokenglass.model.checkpoint.weights import plan_reading, read_weights
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import CheckpointError
from tokenglass.model.loading import load_model
from tokenglass.model.progress import finish
from tokenglass.model.sampling.parameters import SamplingParameters

PROMPT = "Once upon a time"


@dataclass(frozen=True)
class Saved:
    release: Release
    folder: Path
    meant: dict[str, Tensor]


@pytest.fixture(scope="module", params=RELEASES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    release, folder = RELEASES[request.param], tmp_path_factory.mktemp("release")
    return Saved(release, folder, save_release(release, folder, SAVERS[release.family]))


def as_float32(weight: Any) -> Tensor:
    """A weight of any kind as a tensor."""
    is_packed = isinstance(weight, Int4Weight | Int8Weight)
    return torch.from_numpy(np.ascontiguousarray(weight.dequantize())) if is_packed else as_tensor(weight)


@pytest.mark.parametrize("chunk", [CHUNK, 1])
def test_every_matrix_is_what_the_library_makes_of_it(
    saved: Saved, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, in the dtype that the library gives, whole or 16 rows at a time."""
    monkeypatch.setattr("tokenglass.model.checkpoint.formats.coded.CHUNK", chunk)
    content = finish(read_weights(Checkpoint.open(saved.folder), dtype="float32"))
    for name, reference in saved.meant.items():
        assert torch.equal(as_float32(content.weights[name]).to(reference.dtype), reference), name


def test_what_a_layout_holds_exactly_is_kept_and_the_rest_is_widened_with_one_note(saved: Saved) -> None:
    checkpoint = Checkpoint.open(saved.folder)
    content = finish(read_weights(checkpoint, dtype="bfloat16"))
    kinds = {"int4": Int4Weight, "int8": Int8Weight}
    assert checkpoint.packing is not None
    assert len(checkpoint.packing.matrices) == sum(name in checkpoint.packing.matrices for name in saved.meant)
    for name in checkpoint.packing.matrices:
        layout = checkpoint.kept_formats.get(name)
        assert type(content.weights[name]) is (np.ndarray if layout is None else kinds[layout]), name
    if saved.release.kept is None:
        (note,) = content.notes
        assert note.startswith(saved.release.name)
        assert "are widened to bfloat16, which int4 and int8 do not hold exactly" in note
    else:
        assert content.notes == ()
        assert set(checkpoint.kept_formats.values()) == {saved.release.kept}


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_greedy_text_is_that_of_the_dequantised_model(saved: Saved, backend: Literal["native", "torch"]) -> None:
    loaded = load_model(saved.folder, dtype="float32", device="cpu", backend=backend)
    prompt = tuple(loaded.tokenizer.encode(PROMPT))
    request = Request(prompt, 1, SamplingParameters(temperature=0), max_new_tokens=24)
    new = tiny.new_tokens(list(decode(Job(loaded.engine, loaded.tokenizer, request))))
    logits = dequantised_logits(saved, [*prompt, *new])[len(prompt) - 1 : -1]
    assert len(set(new)) > 1
    assert new == logits.argmax(-1).tolist()
    ours = as_tensor(loaded.engine.forward([[*prompt, *new]], None, last=None))[0, len(prompt) - 1 : -1]
    assert (ours - logits).abs().max() <= 1e-3 * logits.abs().max()  # kernels round activations to 16 bits beside int4


def dequantised_logits(saved: Saved, token_ids: list[int]) -> Tensor:
    """transformers' logits of the model whose matrices are what the library makes of them."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    folder = saved.folder / "dequantised"
    folder.mkdir(exist_ok=True)
    reference = {name: tensor.float() for name, tensor in saved.meant.items()}
    safetensors.torch.save_file(reference, folder / releases.SINGLE, {"format": "pt"})
    shutil.copy(saved.folder / "config.json", folder)
    tiny.edit_json(folder / "config.json", quantization_config=None, quantization=None, dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(torch.tensor([token_ids])).logits[0]


def test_inspect_counts_scales_in_the_bits_of_a_weight(tmp_path: Path) -> None:
    save_release(RELEASES["int4, groups of 32"], tmp_path, save_llama)
    facts = json.loads(tokenglass("inspect", str(tmp_path), "--json").stdout)
    assert facts["packed"] == {
        "method": "compressed-tensors, pack-quantized, 4 bits in groups of 32",
        "weights": 73728,
        "matrices": 14,
        "bits_per_weight": pytest.approx(4 + 16 / 32 + 14 * 2 * 64 / 73728),  # and the shapes that are stored
    }
    assert facts["dtypes"] == {"packed": 73728, "bfloat16": 65856}
    assert facts["parameters"] == 139584
    table = tokenglass("inspect", str(tmp_path)).stdout.decode()
    assert "packed by" in table
    assert "4.52 bits each, scales" in table


def test_a_release_generates_in_one_command(tmp_path: Path) -> None:
    reference = save_release(RELEASES["fp8, blocks"], tmp_path / "release", save_llama)
    done = generate("-m", str(tmp_path / "release"), "-n", "8", "-t", "0", PROMPT)
    assert done.returncode == 0, done.stderr
    (note,) = done.stderr.decode().splitlines()
    assert "FP8 in blocks of 32 by 32: 14 of 14 matrices are widened to bfloat16" in note
    plain = save_llama(tmp_path / "plain")
    safetensors.torch.save_file(
        {k: v.bfloat16() for k, v in reference.items()}, plain / releases.SINGLE, {"format": "pt"}
    )
    tiny.byte_level_tokenizer().save(str(plain / "tokenizer.json"))
    assert done.stdout == generate("-m", str(plain), "-n", "8", "-t", "0", PROMPT).stdout


def test_a_packed_matrix_that_int4_holds_is_not_rounded_again_by_quantize(tmp_path: Path) -> None:
    reference = save_release(RELEASES["int4, groups of 64"], tmp_path / "release", save_llama)
    arguments = ("quantize", str(tmp_path / "release"), str(tmp_path / "made"), "--format", "int4", "--no-measure")
    assert tokenglass(*arguments).returncode == 0
    content = finish(read_weights(Checkpoint.open(tmp_path / "made"), dtype="float32"))
    for name in (name for name in reference if ".layers." in name and "_proj" in name):
        assert torch.equal(as_float32(content.weights[name]), reference[name]), name
    eight = load_model(tmp_path / "release", device="cpu", quantize="int8", backend="native")
    assert isinstance(eight.engine.weights["model.layers.0.mlp.up_proj.weight"], Int8Weight)


def test_ranges_of_activations_and_of_the_cache_are_no_surprise(tmp_path: Path) -> None:
    save_release(RELEASES["fp8, one scale of another name"], tmp_path, save_llama)
    tensors = safetensors.torch.load_file(tmp_path / releases.SINGLE)
    for role in ("input_scale", "activation_scale", "k_scale", "output_scale", "input_zero_point"):
        tensors[f"model.layers.0.self_attn.k_proj.{role}"] = torch.ones(())
    tensors["model.layers.0.self_attn.k_scale"] = torch.ones(())
    safetensors.torch.save_file(tensors, tmp_path / releases.SINGLE, {"format": "pt"})
    (note,) = finish(read_weights(Checkpoint.open(tmp_path), dtype="float32")).notes
    assert "not used" not in note


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_release_is_computed_in_bfloat16_beside_what_is_kept(
    backend: Literal["native", "torch"], tmp_path: Path
) -> None:
    """Its own dtype, with biases, an embedding and a head that are packed too."""

    def save(folder: Path) -> Path:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "attention_bias": True}
        return tiny.save_llama(folder, dtype=torch.bfloat16, **sizes)

    reference = save_release(RELEASES["mlx, 4 bits"], tmp_path, save)
    loaded = load_model(tmp_path, device="cpu", backend=backend)
    assert (loaded.dtype, loaded.notes) == ("bfloat16", ())
    ids = list(range(1, 60))
    ours = as_tensor(loaded.engine.forward([ids], None, last=None))[0]
    theirs = dequantised_logits(Saved(RELEASES["mlx, 4 bits"], tmp_path, reference), ids)
    assert (ours - theirs).norm() / theirs.norm() < 5e-2  # the cache is in bfloat16


@pytest.mark.parametrize(("name", "bits"), [("gptq, 4 bits", 5), ("awq", 16), ("int8, rows", 8)])
def test_the_memory_that_a_release_takes_is_known_from_its_scales(name: str, bits: int, tmp_path: Path) -> None:
    save_release(RELEASES[name], tmp_path, save_llama)
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.packing is not None
    packed = checkpoint.packing.num_weights
    assert checkpoint.nbytes_as("bfloat16") == (packed * bits + (checkpoint.num_parameters - packed) * 16) // 8
    assert checkpoint.nbytes_as("float32") >= checkpoint.nbytes_as("bfloat16") > checkpoint.nbytes_as("int4")
    content = finish(read_weights(checkpoint, dtype="bfloat16"))
    nbytes = sum(weight.nbytes for weight in content.weights.values())
    assert nbytes == pytest.approx(checkpoint.nbytes_as("bfloat16"), rel=0.05)  # int8 has scales of its own


def test_a_release_in_float16_is_rounded_to_bfloat16_and_says_so(tmp_path: Path) -> None:
    def save(folder: Path) -> Path:
        return tiny.save_llama(folder, dtype=torch.float16, hidden_size=64, intermediate_size=128)

    save_release(RELEASES["gptq, 4 bits"], tmp_path, save)
    loaded = load_model(tmp_path, device="cpu", backend="native")
    assert loaded.notes == ("float16 is rounded to bfloat16 (--dtype float32 keeps it)",)
    assert load_model(tmp_path, device="cpu", backend="native", dtype="float32").notes == ()


def test_modelopt_may_say_it_in_a_file_of_its_own(tmp_path: Path) -> None:
    reference = save_release(RELEASES["nvfp4 of modelopt"], tmp_path, save_llama)
    tiny.edit_json(tmp_path / "config.json", quantization_config=None)
    with pytest.raises(CheckpointError, match=r"unsupported dtype|wrong shape"):
        plan_reading(Checkpoint.open(tmp_path))
    content = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(content))
    read = finish(read_weights(Checkpoint.open(tmp_path), dtype="float32"))
    assert all(
        torch.equal(as_float32(read.weights[name]), weight) for name, weight in reference.items() if weight.ndim == 2
    )


@pytest.mark.parametrize(
    ("changed", "with_it"), [("self_attn.q_proj", ()), ("self_attn.k_proj", ()), ("mlp.up_proj", ("mlp.gate_proj",))]
)
def test_an_adapter_is_merged_into_packed_matrices_which_are_then_not_kept(
    changed: str, with_it: tuple[str, ...], tmp_path: Path
) -> None:
    """A gate and what it gates are held alike; other matrices of a layer may be of two kinds."""
    release, layer = tmp_path / "release", "model.layers.1."
    meant = save_release(RELEASES["gptq, 4 bits"], release, save_llama)
    name = f"{layer}{changed}.weight"
    out, columns = meant[name].shape
    down, up = torch.randn(4, columns), torch.randn(out, 4)
    stem = f"{layer}{changed}"
    adapter = lora_adapter(tmp_path / "adapter", {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up})
    content = finish(read_weights(Checkpoint.open(release).with_adapters((adapter,)), dtype="float32"))
    merged = meant[name] + 10 / 4 * (up @ down)
    torch.testing.assert_close(as_float32(content.weights[name]), merged, rtol=1e-5, atol=1e-5)
    parts = [*(f"self_attn.{part}_proj" for part in "qkvo"), *(f"mlp.{part}_proj" for part in ("gate", "up", "down"))]
    widened = [part for part in parts if not isinstance(content.weights[f"{layer}{part}.weight"], Int4Weight)]
    assert sorted(widened) == sorted((changed, *with_it))
    engines = [
        load_model(release, dtype="float32", device="cpu", backend=backend, adapters=(adapter,)).engine
        for backend in ("native", "torch")
    ]
    native, reference = (as_tensor(engine.forward([[1, 5, 9, 300]], None, last=None)) for engine in engines)
    assert (native - reference).abs().max() <= 1e-3 * reference.abs().max()


@pytest.mark.parametrize("family", ["phi3", "glm4", "gpt_neox", "qwen3_next"])
def test_packed_matrices_are_cut_and_ordered_as_others_are(family: str, tmp_path: Path) -> None:
    """Matrices that hold several weights, and heads whose numbers lie in another order."""
    model_type, options = CASES[family]
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "linear_value_head_dim": 16}
    experts = {"num_experts": 8, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64}
    save(tmp_path / "plain", model_type, {**options, **sizes, **(experts if "num_experts" in options else {})})
    reference = save_release(RELEASES["gptq, 4 bits"], tmp_path / "release", lambda f: copy(tmp_path / "plain", f))
    safetensors.torch.save_file(reference, tmp_path / "plain" / releases.SINGLE, {"format": "pt"})
    plain = finish(read_weights(Checkpoint.open(tmp_path / "plain"), dtype="float32"))
    content = finish(read_weights(Checkpoint.open(tmp_path / "release"), dtype="float32"))
    for name, weight in plain.weights.items():
        assert torch.equal(as_float32(content.weights[name]), as_tensor(weight)), name


def copy(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder))


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_experts_of_gpt_oss_in_mxfp4(backend: Literal["native", "torch"], tmp_path: Path) -> None:
    """Those of all experts lie in one tensor, gates and ups in turn."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: PLC0415  (takes seconds)

    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "dtype": "bfloat16"}
    model_type, options = CASES["gpt_oss"]
    release, plain = tmp_path / "release", tmp_path / "plain"
    save(plain, model_type, {**options, **sizes})
    copy(plain, release)
    reference = safetensors.torch.load_file(plain / releases.SINGLE)
    stored = dict(reference)
    for name in [name for name in reference if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, columns, rows = stored.pop(name).shape
        parts, _ = pack_mlx_floats(reference[name].swapaxes(1, 2).reshape(-1, columns), 4)
        blocks = parts["weight"].view(torch.uint8).reshape(experts, rows, columns // 32, 16)
        scales = parts["scales"].reshape(experts, rows, columns // 32)
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        reference[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).to(reference[name].dtype)
    safetensors.torch.save_file(stored, release / releases.SINGLE, {"format": "pt"})
    safetensors.torch.save_file(reference, plain / releases.SINGLE, {"format": "pt"})
    tiny.edit_json(release / "config.json", quantization_config={"quant_method": "mxfp4"})
    ours, theirs = (load_model(folder, dtype="float32", device="cpu", backend=backend) for folder in (release, plain))
    ids = [list(range(1, 40))]
    assert np.array_equal(ours.engine.forward(ids, None, last=None), theirs.engine.forward(ids, None, last=None))
    (note,) = ours.notes
    assert note.startswith("MXFP4: 54 of 54 matrices are widened to float32")

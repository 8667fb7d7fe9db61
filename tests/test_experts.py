"""Mixtures of experts: how files spell them, what is held in fewer bits, and what of a config or an adapter is refused.

Logits, bits, caches and texts of these families are tested with those of all others (test_families.py,
test_kernels_engine.py, test_random_configs.py, test_lossless.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import shell
import torch
from families import CASES, EXPERTS, SIZES, save
from safetensors.torch import load_file, save_file
from test_lora import adapter, low_rank

from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised import Quantizer
from tokenglass.model.checkpoint.weights import read_weights, step_bytes
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import CheckpointError, ConfigError, ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.progress import finish
from tokenglass.model.torch_engine.split import Split

SHARED = {**SIZES, **EXPERTS, "shared_expert_intermediate_size": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experts")
    save(root, "qwen2_moe", SHARED)
    return root


LLAMAS = ("gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(
    ("family", "options", "module", "names"),
    [
        ("qwen2_moe", SHARED, "mlp", LLAMAS),
        (*CASES["qwen3_5_moe_text"], "mlp", LLAMAS),
        (*CASES["lfm2_moe"], "feed_forward", ("w1", "w3", "w2")),
    ],
)
def test_experts_in_one_tensor_are_those_in_many(
    family: str, options: dict[str, Any], module: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    save(folder, family, options)
    tensors = load_file(folder / "model.safetensors")
    for layer in range(options.get("num_dense_layers", 0), options["num_hidden_layers"]):
        experts = f"model.layers.{layer}.{module}.experts"
        gate, up, down = (
            torch.stack([tensors.pop(f"{experts}.{number}.{name}.weight") for number in range(6)]) for name in names
        )
        tensors |= {f"{experts}.gate_up_proj": torch.cat((gate, up), dim=1), f"{experts}.down_proj": down}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    one, many = (finish(read_weights(Checkpoint.open(path), dtype="float32")).weights for path in (tmp_path, folder))
    assert one.keys() == many.keys()
    assert all(np.array_equal(np.asarray(one[name]), np.asarray(many[name])) for name in many)


def test_routers_stay_in_float32_where_all_other_matrices_have_8_bits(folder: Path) -> None:
    content = finish(read_weights(Checkpoint.open(folder), dtype="float32", quantizer=Quantizer("int8")))
    routers = {name for name in content.weights if name.endswith((".mlp.gate.weight", ".shared_expert_gate.weight"))}
    assert len(routers) == 2 * SIZES["num_hidden_layers"]
    assert all(np.asarray(content.weights[name]).dtype == np.float32 for name in routers)
    assert content.blueprint.quantisable.isdisjoint(routers)
    assert f"{'model.layers.0.mlp'}.experts.5.up_proj.weight" in content.blueprint.quantisable


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_routers_choose_by_beside_probabilities_is_not_rounded(dtype: str, tmp_path: Path) -> None:
    save(tmp_path, *CASES["lfm2_moe"])
    stored = load_file(tmp_path / "model.safetensors")
    content = finish(read_weights(Checkpoint.open(tmp_path), dtype=dtype)).weights
    for layer in range(1, 4):
        bias = np.asarray(content[f"model.layers.{layer}.mlp.expert_bias"])
        assert bias.dtype == np.float32
        assert np.array_equal(bias, stored[f"model.layers.{layer}.feed_forward.expert_bias"].numpy())


def test_a_step_reads_the_share_of_the_experts_that_it_takes(folder: Path) -> None:
    content = finish(read_weights(Checkpoint.open(folder), dtype="float32"))
    expert = 3 * SIZES["hidden_size"] * EXPERTS["moe_intermediate_size"] * 4  # bytes
    whole = sum(weight.nbytes for name, weight in content.weights.items() if name not in content.blueprint.read_once)
    assert step_bytes(content.blueprint, content.weights) == whole - 4 * expert * SIZES["num_hidden_layers"]


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_what_other_passes_left_behind_changes_no_bit(folder: Path, kind: Literal["float32", "int8"]) -> None:
    """The shared expert is wider than the others, in whose place it may have stood."""
    quantize: Any = "none" if kind == "float32" else kind
    engine = load_model(folder, dtype="float32", device="cpu", backend="native", quantize=quantize, threads=2).engine
    chance = np.random.default_rng(0)
    ids = [chance.integers(1, 500, 40).tolist()]
    first = engine.forward(ids, None, last=None)[0]
    for length in chance.integers(1, 60, 30).tolist():
        engine.forward([chance.integers(1, 500, length).tolist()], None)
        assert np.array_equal(engine.forward(ids, None, last=None)[0], first)


@pytest.mark.parametrize("stored", ["int8", "int4"])
def test_it_is_stored_in_fewer_bits_and_read_again(folder: Path, stored: str, tmp_path: Path) -> None:
    done = shell.tokenglass(
        "quantize", str(folder), str(tmp_path / "made"), "--format", stored, "--calibrate", "0", "--json"
    )
    assert done.returncode == 0, done.stderr
    one, other = (
        shell.generate("-m", str(source), "The fox", "-n", "12", "--temperature", "0", *options)
        for source, options in ((tmp_path / "made", ()), (folder, ("--quantize", stored)))
    )
    assert one.returncode == 0, one.stderr
    assert one.stdout == other.stdout


def test_inspect_names_the_experts(folder: Path) -> None:
    facts = json.loads(shell.tokenglass("inspect", str(folder), "--json").stdout)
    assert facts["experts"] == {
        "count": 6,
        "chosen": 2,
        "size": 20,
        "shared_size": 40,
        "beside_dense": False,
        "layers": 3,
    }
    assert b"2 of 6 experts" in shell.tokenglass("inspect", str(folder)).stdout


def test_inspect_names_a_feed_forward_beside_experts(tmp_path: Path) -> None:
    save(tmp_path, *CASES["gemma4_text, experts"])
    facts = json.loads(shell.tokenglass("inspect", str(tmp_path), "--json").stdout)
    sizes = {"count": 6, "chosen": 2, "size": 20, "shared_size": None}
    assert facts["experts"] == {**sizes, "beside_dense": True, "layers": 5}
    words = b"2 of 6 experts of 20 numbers beside a feed-forward, in 5 layers"
    assert words in b" ".join(shell.tokenglass("inspect", str(tmp_path)).stdout.split())


QWEN3 = {"model_type": "qwen3_moe", **SIZES, **EXPERTS}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"num_experts": 0}, "2 experts of 0 are chosen"),
        ({"num_experts_per_tok": 7}, "7 experts of 6 are chosen"),
        ({"num_experts": 2**15}, "98,304 experts in all layers"),
        ({"num_experts": "six"}, "num_experts"),
        ({"moe_intermediate_size": 2**40}, "expert's size"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step"),
        ({"mlp_only_layers": [True]}, "mlp_only_layers"),
        ({"mlp_only_layers": 3}, "mlp_only_layers"),
        ({"model_type": "olmoe", "clip_qkv": 8.0}, "clip_qkv 8.0 is not supported"),
        ({"model_type": "lfm2_moe", "routed_scaling_factor": 0}, "routed_scaling_factor is 0.0; expected a positive"),
        ({"model_type": "lfm2_moe", "num_dense_layers": "two"}, "num_dense_layers is 'two'"),
        ({"model_type": "lfm2_moe", "use_expert_bias": 1}, "use_expert_bias is 1; expected true or false"),
        ({"model_type": "gpt_oss", "swiglu_limit": 0}, "swiglu_limit 0.0 are not positive"),
    ],
)
def test_what_no_model_has_or_is_not_built_is_refused_by_name(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        ModelConfig.from_hf({**QWEN3, **changes})


def test_the_number_of_experts_has_two_names() -> None:
    renamed = {"num_local_experts" if key == "num_experts" else key: value for key, value in QWEN3.items()}
    assert ModelConfig.from_hf(renamed) == ModelConfig.from_hf(QWEN3)
    assert ModelConfig.from_hf(QWEN3).notes == ModelConfig.from_hf(renamed).notes == ()


def test_several_processes_are_refused_by_name() -> None:
    with pytest.raises(ParameterError, match="a mixture of experts is not split"):
        Split(Blueprint.of(ModelConfig.from_hf({**QWEN3, "intermediate_size": 48})), 0, 2)


def test_an_adapter_of_one_expert_goes_into_that_one(folder: Path, tmp_path: Path) -> None:
    module = "model.layers.0.mlp.experts.3.up_proj"
    one = adapter(tmp_path / "fox", low_rank(module, 20, 32))
    plain = Checkpoint.open(folder)
    before, after = (
        finish(read_weights(each, dtype="float32")).weights for each in (plain, plain.with_adapters((one,)))
    )
    assert [name for name in before if not np.array_equal(before[name], after[name])] == [f"{module}.weight"]
    fused = adapter(tmp_path / "hen", low_rank("model.layers.0.mlp.experts", 20, 32))
    with pytest.raises(CheckpointError, match="fits no weight"):
        finish(read_weights(plain.with_adapters((fused,)), dtype="float32"))

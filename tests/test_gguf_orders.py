"""GGUF files of Gated DeltaNet and of mixtures with convolutions: heads, matrices and numbers that the converter lays
otherwise come back, and what no model has is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import save
from safetensors.torch import load_file, save_file
from test_gguf_families import CASES, DELTA, EXPERTS, SIZES
from tiny_gguf import TYPES, write_gguf

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.quantised import Int4Weight
from tokenglass.model.checkpoint.weights import read_weights
from tokenglass.model.errors import ConfigError, GGUFError
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.importers.gguf_file import GGUFFile
from tokenglass.model.progress import finish


def write(folder: Path, *, family: str = "qwen3_5_text", changes: dict[str, Any] | None = None, **options: Any) -> Path:
    experts = EXPERTS if family == "qwen3_next" else {}
    save(folder / "original", family, {**SIZES, **DELTA, **experts, **(changes or {})})
    return write_gguf(folder / "a.gguf", folder / "original", **options)


def import_file(path: Path, *, keep: bool = False) -> tuple[Path, str]:
    folder = path.parent / ("kept" if keep else "plain")
    return folder, finish(import_gguf(path, folder, keep=keep))


@pytest.mark.parametrize("keys", [1, 2, 3, 6])
@pytest.mark.parametrize(("family", "fused"), [("qwen3_5_text", False), ("qwen3_next", False), ("qwen3_next", True)])
def test_value_heads_come_back_whatever_number_shares_a_key_head(
    family: str, fused: bool, keys: int, tmp_path: Path
) -> None:
    """Earlier files of qwen3_next have the inputs of a recurrence in one tensor."""
    changes = {"linear_num_key_heads": keys, "linear_value_head_dim": 16, "num_hidden_layers": 1}
    path = write(tmp_path, family=family, changes=changes, fused=fused)
    names = {tensor.name for tensor in GGUFFile.open(path).tensors}
    assert ("blk.0.ssm_in.weight" in names, "blk.0.attn_qkv.weight" in names) == (fused, not fused)
    expected = load_file(tmp_path / "original" / "model.safetensors")
    actual = load_file(import_file(path)[0] / "model.safetensors")
    assert actual.keys() == expected.keys()
    for name in (name for name in expected if ".linear_attn." in name and not name.endswith("A_log")):
        assert torch.equal(actual[name], expected[name]), name


def test_layers_without_attention_may_be_listed(tmp_path: Path) -> None:
    types = ["linear_attention", "full_attention", "full_attention", "linear_attention"]
    recurrent = tuple(name == "linear_attention" for name in types)
    path = write(tmp_path, changes={"layer_types": types}, qwen35__attention__recurrent_layers=recurrent)
    folder, _ = import_file(path)
    assert json.loads((folder / "config.json").read_text())["layer_types"] == types
    assert [layer.delta is not None for layer in Checkpoint.open(folder).config.layers] == list(recurrent)


def test_layers_that_guess_further_tokens_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    others = {f"blk.4.{name}.weight": np.ones(64, np.float32) for name in ("attn_norm", "nextn.enorm")}
    changes = {"qwen35__block_count": 5, "qwen35__nextn_predict_layers": 1}
    folder, notes = import_file(write(tmp_path, others=others, **changes))
    assert notes == "without the layers that guess further tokens"
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 4


def test_a_layer_that_is_not_announced_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, others={"blk.4.nextn.enorm.weight": np.ones(64, np.float32)})
    with pytest.raises(GGUFError, match=r"tensors that the model does not have: blk\.4\.nextn\.enorm\.weight"):
        import_file(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qwen35__ssm__inner_size": 191}, "ssm.inner_size is 191; expected a multiple of 6 value heads"),
        ({"qwen35__ssm__time_step_rank": 0}, "expected a multiple of 0 value heads"),
        ({"qwen35__ssm__group_count": 4}, "6 value heads cannot be shared by 4 key heads"),
        ({"qwen35__ssm__group_count": 2**31}, "no sizes of linear attention"),
        ({"qwen35__ssm__state_size": None}, "ssm.state_size"),
        ({"qwen35__full_attention_interval": 3}, "tensors that the model does not have"),
        ({"qwen35__attention__recurrent_layers": (True,)}, "layer_types"),
        ({"qwen35__nextn_predict_layers": 4}, "num_hidden_layers"),
    ],
)
def test_what_no_model_has_is_refused_by_name(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises((GGUFError, ConfigError), match=words) as error:
        import_file(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "plain").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lfm2moe__expert_gating_func": 1}, "expert_gating_func is 1; expected 2, a sigmoid"),
        ({"lfm2moe__expert_gating_func": None}, "expert_gating_func"),
        ({"lfm2moe__expert_weights_scale": 2.0}, "lfm2moe.expert_weights_scale 2.0 is not supported"),
        ({"lfm2moe__leading_dense_block_count": 2}, "tensors that the model does not have: blk.1.ffn_gate_exps.weight"),
        ({"lfm2moe__leading_dense_block_count": None}, "tensors that the model does not have: blk.0.ffn_"),
        ({"lfm2moe__leading_dense_block_count": 4}, "tensors that the model does not have: blk.1"),
        ({"lfm2moe__expert_feed_forward_length": 31}, "wrong shape: blk.1.ffn_"),
    ],
)
def test_a_mixture_with_convolutions_that_no_model_has_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    save(tmp_path / "original", *CASES["lfm2_moe"])
    path = write_gguf(tmp_path / "a.gguf", tmp_path / "original", **changes)
    with pytest.raises((GGUFError, ConfigError), match=words):
        import_file(path)


def test_queries_keys_and_values_of_glm_in_one_tensor_come_back(tmp_path: Path) -> None:
    save(tmp_path / "original", *CASES["glm"])
    import_file(write_gguf(tmp_path / "a.gguf", tmp_path / "original", fused=True))
    expected, actual = (load_file(tmp_path / name / "model.safetensors") for name in ("original", "plain"))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_routers_choose_by_beside_probabilities_is_imported_as_it_is(dtype: str, tmp_path: Path) -> None:
    save(tmp_path / "original", *CASES["lfm2_moe"])
    path = write_gguf(tmp_path / "a.gguf", tmp_path / "original")
    finish(import_gguf(path, tmp_path / "imported", dtype=dtype))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("imported", "original"))
    biases = {name for name in theirs if name.endswith("expert_bias")}
    assert len(biases) == 3
    assert all(torch.equal(ours[name], theirs[name]) for name in biases)
    assert {tensor.dtype for name, tensor in ours.items() if name not in biases} == {getattr(torch, dtype)}


def test_the_bias_of_a_choice_is_refused_where_the_family_has_none(tmp_path: Path) -> None:
    others = {"blk.0.exp_probs_b.bias": np.ones(EXPERTS["num_experts"], np.float32)}
    path = write(tmp_path, family="qwen3_next", others=others)
    with pytest.raises(GGUFError, match=r"tensors that the model does not have: blk\.0\.exp_probs_b\.bias"):
        import_file(path)


def test_a_decay_that_no_head_can_have_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    weights = load_file(tmp_path / "original" / "model.safetensors")
    weights["model.layers.0.linear_attn.A_log"] *= torch.nan
    save_file(weights, tmp_path / "original" / "model.safetensors", {"format": "pt"})
    write_gguf(path, tmp_path / "original")
    with pytest.raises(GGUFError, match="ssm_a holds a number that is not negative; the file is damaged"):
        import_file(path)


def test_a_matrix_whose_groups_are_torn_apart_is_widened_exactly(tmp_path: Path) -> None:
    """Heads of 16 in blocks of 32; what else there is, is kept."""
    path = write(tmp_path, changes={"linear_value_head_dim": 16}, quantised=TYPES.Q4_0)
    (kept_folder, notes), (plain_folder, _) = import_file(path, keep=True), import_file(path)
    kept, plain = (
        finish(read_weights(Checkpoint.open(folder), dtype="float32")).weights for folder in (kept_folder, plain_folder)
    )
    wide = {f"model.layers.{layer}.linear_attn.out_proj.weight" for layer in range(3)}
    matrices = Checkpoint.open(kept_folder).blueprint.quantisable
    assert {name for name in matrices if not isinstance(kept[name], Int4Weight)} == wide
    assert notes == f"{len(matrices) - 3} of {len(matrices)} matrices kept as int4 (Q4_0); Q4_0 became float32"
    for name, expected in plain.items():
        weight = kept[name]
        assert np.array_equal(weight.dequantize() if isinstance(weight, Int4Weight) else weight, expected), name


@pytest.mark.parametrize("fused", [False, True])
def test_rows_that_lie_head_by_head_are_kept_as_they_are_quantised(fused: bool, tmp_path: Path) -> None:
    shared = {"shared_expert_intermediate_size": 64}
    path = write(tmp_path, family="qwen3_next", changes=shared, quantised=TYPES.Q4_0, fused=fused)
    (kept_folder, notes), (plain_folder, _) = import_file(path, keep=True), import_file(path)
    kept, plain = (
        finish(read_weights(Checkpoint.open(folder), dtype="float32")).weights for folder in (kept_folder, plain_folder)
    )
    matrices = Checkpoint.open(kept_folder).blueprint.quantisable
    assert all(isinstance(kept[name], Int4Weight) for name in matrices)
    assert notes.startswith(f"{len(matrices)} of {len(matrices)} matrices kept as int4 (Q4_0)")
    for name, expected in plain.items():
        weight = kept[name]
        assert np.array_equal(weight.dequantize() if isinstance(weight, Int4Weight) else weight, expected), name


@pytest.mark.parametrize("order", [np.arange(96)[::-1], np.arange(96).reshape(3, 32)[[2, 0, 1]].reshape(-1)])
def test_columns_of_a_coded_matrix_in_another_order(order: Array) -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 16, (16, 96), np.uint8)
    scales, offsets = (generator.standard_normal((16, 3), np.float32) for _ in range(2))
    matrix = CodedMatrix((16, 96), 4, codes.__getitem__, scales, 32, offsets=offsets)
    moved = matrix.with_columns(order)
    assert np.array_equal(moved.numbers("float32"), matrix.numbers("float32")[:, order])
    assert (moved.group_of is None) == (order[0] == 64)

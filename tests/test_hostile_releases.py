"""Quantised releases whose files do not fit: one line says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import releases
import safetensors.torch
import tiny
import torch
from releases import RELEASES, save_llama, save_release
from torch import Tensor

from tokenglass.model.errors import TokenglassError
from tokenglass.model.loading import load_model

Change = Callable[[dict[str, Tensor], dict[str, Any]], None]  # of the stored tensors, and of the method in config.json
UP = "model.layers.0.mlp.up_proj."


def without(role: str) -> Change:
    return lambda tensors, _: tensors.__delitem__(UP + role)


def other(role: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors, _: tensors.update({UP + role: change(tensors[UP + role]).contiguous()})


def config(**changes: Any) -> Change:
    return lambda _, method: method.update(changes)


def weights(**changes: Any) -> Change:
    return lambda _, method: method["config_groups"]["group_0"]["weights"].update(changes)


HOSTILE: list[tuple[str, Change, str]] = [
    (
        "fp8, blocks",
        without("weight_scale_inv"),
        "up_proj.weight: the weights do not fit config.json; weight_scale is m",
    ),
    ("fp8, blocks", without("weight"), "up_proj.weight: the weights do not fit config.json; weight is missing"),
    ("fp8, blocks", other("weight_scale_inv", lambda t: t[:1]), "weight_scale_inv is [1, 2], expected "),
    ("fp8, blocks", other("weight_scale_inv", lambda t: t.to(torch.int32)), "weight_scale_inv is I32, expected F32 or"),
    (
        "fp8, blocks",
        other("weight_scale_inv", lambda t: t.double()),
        "up_proj.weight_scale_inv is F64, which is not read",
    ),
    ("fp8, blocks", other("weight", lambda t: t[:, :32]), "weight is [128, 32], expected [128, 64]"),
    ("fp8, blocks", other("weight", lambda t: t.to(torch.float8_e5m2)), "weight is F8_E5M2, expected F8_E4M3"),
    ("fp8, blocks", config(weight_block_size=[0, 32]), "weight_block_size is [0, 32]; expected two numbers from 1 to"),
    (
        "fp8, blocks",
        config(weight_block_size=[2**62, 1]),
        "weight_block_size is [4611686018427387904, 1]; expected two",
    ),
    ("fp8, blocks", config(weight_block_size="big"), "weight_block_size is 'big'; expected a list of 2"),
    ("fp8, blocks", config(fmt="e5m2"), "fmt 'e5m2' is not read (read: e4m3); take another release of the model"),
    ("fp8, blocks", config(quant_method="quip\n"), r"weights quantised by 'quip\n' are not read (read: fp8, "),
    ("fp8, blocks", config(quant_method=[1]), "quant_method is [1]; expected a string"),
    ("int4, groups of 32", without("weight_scale"), "weight_scale is missing"),
    (
        "int4, groups of 32",
        other("weight_scale", lambda t: t[:, :1].repeat(1, 3)),
        "weight_scale is [128, 3], expected ",
    ),
    (
        "int4, groups of 32",
        other("weight_packed", lambda t: t[:, :7]),
        "weight_packed is [128, 7], which no number of bits that",
    ),
    ("int4, groups of 32", other("weight_packed", lambda t: t[:7]), "weight_packed is [7, 8], expected [128, 8]"),
    (
        "int4, groups of 32",
        other("weight_packed", lambda t: t.reshape(-1)),
        "weight_packed is [1024], expected a matrix",
    ),
    ("int4, groups of 32", other("weight_shape", lambda t: t + 2**40), "weight_shape is [1099511627904, 109951162784"),
    ("int4, groups of 32", weights(group_size=2**40), "group_size is 1099511627776; expected -1, or from 1 to 65,535"),
    ("int4, groups of 32", weights(group_size=0), "group_size is 0; expected -1, or from 1 to 65,535"),
    ("int4, groups of 32", weights(group_size=64), "weight_scale is [64, 4], expected "),
    ("int4, groups of 32", weights(num_bits=90), "num_bits is 90; expected from 1 to 8"),
    (
        "int4, groups of 32",
        weights(num_bits=None),
        "weight_packed is [64, 16], which no number of bits that config.json names makes",
    ),
    ("int4, groups of 32", config(format="marlin-24"), "format 'marlin-24' is not read (read: int-quantized, float-q"),
    ("int4, groups of 32", config(transform_config={"config_groups": {}}), "transform_config is not read; take a rel"),
    ("int4, groups of 32", config(sparsity_config={"format": "sparse-bitmask"}), "sparsity_config is not read; take a"),
    ("int4, groups of 32", config(config_groups=[]), "config_groups is []; expected an object"),
    ("int4, uneven", other("weight_zero_point", lambda t: t[:, :1]), "weight_zero_point is [16, 1], expected [16, 2]"),
    ("int4, uneven", without("weight_zero_point"), "weight_zero_point is missing"),
    ("int8, uneven rows", without("weight_zero_point"), "weight_zero_point is missing"),
    ("int4, groups of 32", weights(actorder="group"), "weight_g_idx is missing"),
    ("gptq, ordered by activations", without("g_idx"), "g_idx is missing"),
    ("fp8, blocks", other("weight_scale_inv", lambda t: t[0, 0]), "weight_scale_inv is [], expected [4, 2]"),
    ("fp8, blocks", config(weight_block_size="128xx"), "weight_block_size is '128xx'; expected a list of 2 sizes"),
    ("float8, blocks", weights(block_structure="128x0"), "block_structure is '128x0'; expected two numbers from 1 to"),
    ("int8, uneven rows", other("weight_zero_point", lambda t: t[:2]), "weight_zero_point is [2, 1], expected"),
    ("nvfp4", without("weight_scale"), "weight_scale is missing"),
    ("nvfp4", without("weight_global_scale"), "weight_scale is F8_E4M3, expected U8 or F8_E8M0"),
    ("nvfp4", other("weight_global_scale", lambda t: t.repeat(2)), "weight_global_scale is [2], expected [] or [1]"),
    ("mxfp4", other("weight_scale", lambda t: t[:, :1]), "weight_scale is [128, 1], expected [128, 2]"),
    ("mlx, 4 bits", without("scales"), "scales is missing"),
    ("mlx, 3 bits", without("biases"), "biases is missing"),
    ("mlx, 4 bits", other("biases", lambda t: t[:1]), "biases is [1, 1], expected"),
    (
        "mlx, 4 bits",
        other("weight", lambda t: t.view(torch.int32)[:, :3]),
        "weight is [128, 3], which no number of bits",
    ),
    ("mlx, 4 bits", config(mode="fp3"), "mode 'fp3' is not read (read: affine, mxfp4, mxfp8); take another release"),
    ("mlx, 4 bits", config(bits=12), "bits is 12; expected from 1 to 8"),
    ("mlx, 4 bits", config(group_size=-7), "group_size is -7; expected -1, or from 1 to 65,535"),
    ("gptq, 4 bits", without("scales"), "scales is missing, expected a matrix"),
    ("gptq, 4 bits", without("qzeros"), "qzeros is missing"),
    ("gptq, 4 bits", other("g_idx", lambda t: t + 1), "g_idx names group 2 of 2"),
    ("gptq, 4 bits", other("g_idx", lambda t: t - 9), "g_idx names group -9 of 2"),
    ("gptq, 4 bits", other("g_idx", lambda t: t[:5]), "g_idx is [5], expected [64]"),
    ("gptq, 4 bits", other("g_idx", lambda t: t.float()), "g_idx is F32, expected I32 or I64"),
    (
        "gptq, 4 bits",
        other("scales", lambda t: t[:1]),
        "scales is [1, 128], which no group size that config.json names",
    ),
    (
        "gptq, 4 bits",
        other("qweight", lambda t: t[:-1]),
        "qweight is [7, 128], which no number of bits that config.json",
    ),
    ("gptq, 4 bits", other("qzeros", lambda t: t[:, 1:]), "qzeros is [2, 15], expected [2, 16]"),
    (
        "gptq, 4 bits",
        config(checkpoint_format="marlin"),
        "checkpoint_format 'marlin' is not read (read: gptq, gptq_v2)",
    ),
    ("gptq, 4 bits", config(group_size=10**9), "group_size is 1000000000; expected -1, or from 1 to 65,535"),
    ("awq", config(version="gemv_fast"), "version 'gemv_fast' is not read (read: gemm)"),
    ("awq", config(bits=3), "AWQ of 3 bits in groups of 32 is not read (read: 4 bits)"),
    ("awq", other("qzeros", lambda t: t.T), "qzeros is [16, 2], expected [2, 16]"),
    ("nf4", without("weight.absmax"), "weight.absmax is missing"),
    ("nf4", without("weight.quant_state.bitsandbytes__nf4"), "weight.quant_state.bitsandbytes__nf4 is missing"),
    ("nf4", other("weight.quant_state.bitsandbytes__nf4", lambda t: t[1:]), "not valid JSON"),
    ("nf4", other("weight.quant_state.bitsandbytes__nf4", lambda t: t.repeat(99)), "nf4 has 7,821 bytes"),
    ("nf4", other("weight.absmax", lambda t: t[1:]), "weight.absmax is [127], expected [128]"),
    ("nf4", other("weight.quant_map", lambda t: t[1:]), "weight.quant_map is [15], expected [16]"),
    ("nf4", other("weight", lambda t: t[1:]), "weight is [4095, 1], expected [4096, 1] or [1, 4096]"),
    ("nf4, nested", without("weight.nested_quant_map"), "weight.nested_quant_map is missing"),
    ("int8 of bitsandbytes", other("SCB", lambda t: t[1:]), "SCB is [127], expected [128]"),
    ("int8 of bitsandbytes", other("weight_format", lambda t: t + 2), "weight_format is another than row by row"),
    ("nvfp4 of modelopt", config(quant_algo="W4A8_AWQ"), "quant_algo 'w4a8_awq' is not read (read: nvfp4, fp8, "),
    ("nvfp4 of modelopt", without("weight_scale_2"), "weight_scale_2 is missing"),
    (
        "nvfp4 of modelopt",
        lambda tensors, _: tensors.update({UP + "pre_quant_scale": torch.ones(64)}),
        "pre_quant_scale changes what a matrix is given, which is not read; take another release",
    ),
]


@pytest.mark.parametrize(("name", "change", "message"), HOSTILE)
def test_a_release_that_does_not_fit_is_refused_in_one_line(
    name: str, change: Change, message: str, tmp_path: Path
) -> None:
    save_release(RELEASES[name], tmp_path, save_llama)
    tensors = safetensors.torch.load_file(tmp_path / releases.SINGLE)
    (key, method), *_ = json.loads(json.dumps(RELEASES[name].config)).items()
    change(tensors, method)
    safetensors.torch.save_file(tensors, tmp_path / releases.SINGLE, {"format": "pt"})
    tiny.edit_json(tmp_path / "config.json", **{key: method})
    with pytest.raises(TokenglassError) as caught:
        load_model(tmp_path, device="cpu")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

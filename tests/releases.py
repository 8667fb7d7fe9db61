"""Small random models as quantised releases hold them, packed by the libraries that define the formats, and what each
matrix is worth by those libraries' own dequantisation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import tiny
import torch
from packers import (
    Packed,
    pack_4_bits,
    pack_awq,
    pack_early_zeros,
    pack_every_byte,
    pack_gptq,
    pack_mlx,
    pack_mlx_floats,
    pack_modelopt,
    pack_ordered,
    pack_rows,
)
from torch import Tensor

SINGLE = "model.safetensors"


@dataclass(frozen=True)
class Release:
    """A way of packing: what config.json says, and a function from a bfloat16 matrix (out, in) to parts and values."""

    config: dict[str, Any]
    pack: Callable[[Tensor], Packed]
    kept: str | None = None  # the layout that holds it exactly
    name: str = ""  # as messages call it
    everything: bool = False  # embedding and head too
    family: str = "llama"


def save_release(release: Release, folder: Path, save: Callable[[Path], Path]) -> dict[str, Tensor]:
    """Pack the projections of the model that `save` writes; the weights of the release by the model's own names."""
    save(folder)
    tensors = safetensors.torch.load_file(folder / SINGLE)
    stored: dict[str, Tensor] = {}
    reference: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and (release.everything or ".layers." in name) and not name.endswith("mlp.gate.weight"):
            parts, reference[name] = release.pack(tensor)
            stored |= {name.removesuffix("weight") + role: part.contiguous() for role, part in parts.items()}
        else:
            stored[name] = reference[name] = tensor
    safetensors.torch.save_file(stored, folder / SINGLE, {"format": "pt"})
    tiny.edit_json(folder / "config.json", **json.loads(json.dumps(release.config)))
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return reference


def save_llama(folder: Path) -> Path:
    return tiny.save_llama(folder, dtype=torch.bfloat16, hidden_size=64, intermediate_size=128)


def save_qwen3(folder: Path) -> Path:
    """Grouped heads with norms of their own, a tied head."""
    from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415  (takes seconds)

    sizes = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=tiny.VOCAB_SIZE,
        **sizes,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def save_qwen3_moe(folder: Path) -> Path:
    """A router, which is not packed, and experts, each with matrices of its own."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM  # noqa: PLC0415  (takes seconds)

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
    experts = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    config = Qwen3MoeConfig(
        vocab_size=tiny.VOCAB_SIZE,
        **sizes,
        **experts,
        num_hidden_layers=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


SAVERS = {"llama": save_llama, "qwen3": save_qwen3, "qwen3_moe": save_qwen3_moe}


# FP8, by transformers


def pack_fp8(weight: Tensor, role: str, block: tuple[int, int] | None, dtype: torch.dtype = torch.float32) -> Packed:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize  # noqa: PLC0415

    high, wide = block or weight.shape
    grid = weight.float().reshape(weight.shape[0] // high, high, weight.shape[1] // wide, wide)
    scales = (grid.abs().amax((1, 3)) / 448).to(dtype)
    codes = (grid / scales.float()[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
    reference = Fp8Dequantize(None)._dequantize_one(codes, scales, torch.float32)
    return {"weight": codes, role: scales if block else scales.reshape(())}, reference


# compressed-tensors


def pack_compressed(weight: Tensor, kind: str, arguments: dict[str, Any]) -> Packed:
    from compressed_tensors.compressors.base import BaseCompressor  # noqa: PLC0415  (takes seconds)
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8  # noqa: PLC0415
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme  # noqa: PLC0415
    from compressed_tensors.quantization.lifecycle.forward import dequantize  # noqa: PLC0415
    from compressed_tensors.quantization.utils import calculate_qparams  # noqa: PLC0415

    args = QuantizationArgs(**arguments)
    rows, columns = weight.shape
    high, wide = args.block_structure or (1, args.group_size or columns)
    if args.strategy == "tensor":
        high, wide = weight.shape
    grid = weight.float().reshape(rows // high, high, columns // wide, wide)
    state = {"weight": weight}
    overall = None
    if kind == "nvfp4-pack-quantized":
        overall = state["weight_global_scale"] = 448 * 6 / weight.float().abs().max().reshape(1)
    scales, zeros = calculate_qparams(grid.amin((1, 3)), grid.amax((1, 3)), args, global_scale=overall)
    if overall is None and not kind.startswith("mx"):
        scales = scales.to(torch.bfloat16)
    state["weight_scale"] = scales
    if not args.symmetric:
        state["weight_zero_point"] = zeros.to(torch.int8)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry(kind)
    parts = compressor.compress(state, scheme)
    rounded = compressor.decompress(dict(parts), scheme)["weight"]
    if overall is None:
        scales = parts["weight_scale"] if kind.startswith("mx") else parts["weight_scale"].float()
        reference = compressor.decompress({**parts, "weight_scale": scales}, scheme)["weight"].float()
    else:
        codes = unpack_fp4_from_uint8(parts["weight_packed"], rows, columns, dtype=torch.float32)
        reference = dequantize(
            codes, parts["weight_scale"].float(), args=args, dtype=torch.float32, global_scale=overall
        )
    assert torch.equal(reference.to(rounded.dtype), rounded)  # the library computes in bfloat16
    return parts, reference


def compressed(kind: str, kept: str | None = None, *, family: str = "llama", **arguments: Any) -> Release:
    groups = {"group_0": {"targets": ["Linear"], "weights": arguments, "input_activations": None}}
    config = {"quant_method": "compressed-tensors", "format": kind, "config_groups": groups, "ignore": ["lm_head"]}
    pack = partial(pack_compressed, kind=kind, arguments=arguments)
    return Release({"quantization_config": config}, pack, kept, f"compressed-tensors, {kind}", family=family)


def fp8(
    role: str, block: tuple[int, int] | None, dtype: torch.dtype, *, family: str = "llama", **config: Any
) -> Release:
    pack = partial(pack_fp8, role=role, block=block, dtype=dtype)
    return Release({"quantization_config": {"quant_method": "fp8", **config}}, pack, name="FP8", family=family)


def mlx(
    bits: int, group: int, kept: str | None = None, dtype: torch.dtype = torch.float16, *, family: str = "llama"
) -> Release:
    config = {"quantization": {"group_size": group, "bits": bits}}
    pack = partial(pack_mlx, bits=bits, group=group, dtype=dtype)
    return Release({**config, "quantization_config": config["quantization"]}, pack, kept, "MLX, ", True, family)


def gptq(bits: int, group: int, kept: str | None = None, *, family: str = "llama", **options: Any) -> Release:
    config: dict[str, Any] = {"quant_method": "gptq", "bits": bits, "group_size": group, "dynamic": {}}
    config["desc_act"] = options.get("act_order", False)
    if options.get("version") == 2:
        config["checkpoint_format"] = "gptq_v2"
    pack = partial(pack_gptq, bits=bits, group=group, **options)
    return Release({"quantization_config": config}, pack, kept, f"GPTQ, {bits} bits", family=family)


def awq(group: int, kept: str | None = None, **options: Any) -> Release:
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}
    return Release({"quantization_config": config}, partial(pack_awq, group=group, **options), kept, "AWQ, 4 bits")


def nf4(block: int, *, family: str = "llama", **options: Any) -> Release:
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    pack = partial(pack_4_bits, block=block, **options)
    return Release({"quantization_config": config}, pack, name="bitsandbytes, NF4", family=family)


BYTES = compressed("int-quantized", "int8", num_bits=8, strategy="channel")
NIBBLES = compressed("pack-quantized", "int4", num_bits=4, strategy="group", group_size=32)
RELEASES: dict[str, Release] = {
    "fp8, blocks": fp8("weight_scale_inv", (32, 32), torch.float32, weight_block_size=[32, 32]),
    "fp8, blocks of bfloat16 scales": fp8(
        "weight_scale_inv", (32, 16), torch.bfloat16, family="qwen3", weight_block_size=[32, 16]
    ),
    "fp8, experts": fp8("weight_scale_inv", (32, 32), torch.float32, family="qwen3_moe", weight_block_size=[32, 32]),
    "fp8, one scale": fp8("weight_scale_inv", None, torch.bfloat16, weight_block_size=None),
    "fp8, one scale of another name": fp8("weight_scale", None, torch.float32, activation_scheme="static"),
    "int4, groups of 32": NIBBLES,
    "int4, groups of 64": compressed("pack-quantized", "int4", num_bits=4, strategy="group", group_size=64),
    "int4, rows": compressed("pack-quantized", "int4", num_bits=4, strategy="channel"),
    "int4, groups of 16": compressed("pack-quantized", num_bits=4, strategy="group", group_size=16),
    "int4, uneven": compressed("pack-quantized", num_bits=4, strategy="group", group_size=32, symmetric=False),
    "int3, groups of 32": compressed("pack-quantized", "int4", num_bits=3, strategy="group", group_size=32),
    "int6, groups of 32": compressed("pack-quantized", num_bits=6, strategy="group", group_size=32),
    "int8, packed rows": compressed("pack-quantized", "int8", num_bits=8, strategy="channel"),
    "int8, uneven packed rows": compressed("pack-quantized", num_bits=8, strategy="channel", symmetric=False),
    "int8, packed groups": compressed("pack-quantized", num_bits=8, strategy="group", group_size=64),
    "int8, rows": BYTES,
    "int8, uneven rows": compressed("int-quantized", num_bits=8, strategy="channel", symmetric=False),
    "int8, one scale": compressed("int-quantized", "int8", num_bits=8, strategy="tensor"),
    "int8, every byte": replace(BYTES, pack=pack_every_byte),
    "int4, ordered by activations": replace(NIBBLES, pack=partial(pack_ordered, group=32), kept=None),
    "int4, uneven, of early versions": replace(NIBBLES, pack=partial(pack_early_zeros, group=32), kept=None),
    "float8, rows": compressed("float-quantized", num_bits=8, type="float", strategy="channel"),
    "float8, one scale": compressed("float-quantized", num_bits=8, type="float", strategy="tensor"),
    "float8, blocks": compressed(
        "float-quantized", num_bits=8, type="float", strategy="block", block_structure=[32, 32]
    ),
    "nvfp4": compressed(
        "nvfp4-pack-quantized",
        num_bits=4,
        type="float",
        strategy="tensor_group",
        group_size=16,
        scale_dtype="torch.float8_e4m3fn",
        zp_dtype="torch.float8_e4m3fn",
    ),
    "mxfp4": compressed(
        "mxfp4-pack-quantized",
        num_bits=4,
        type="float",
        strategy="group",
        group_size=32,
        scale_dtype="torch.uint8",
        zp_dtype="torch.uint8",
    ),
    **{f"mlx, {bits} bits": mlx(bits, 64, "int4" if bits <= 4 else None) for bits in (2, 3, 4, 5, 6)},
    "mlx, 4 bits in groups of 32": mlx(4, 32, "int4", torch.bfloat16, family="qwen3"),
    "mlx, 8 bits in groups of 32": mlx(8, 32, None, torch.bfloat16),
    "mlx, mxfp4": Release(
        {"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}},
        partial(pack_mlx_floats, bits=4),
        None,
        "MLX, mxf",
    ),
    "mlx, mxfp8": Release(
        {"quantization": {"group_size": 32, "bits": 8, "mode": "mxfp8"}},
        partial(pack_mlx_floats, bits=8),
        None,
        "MLX, mxf",
    ),
    "gptq, 4 bits": gptq(4, 32, "int4"),
    "gptq, 4 bits, qwen3": gptq(4, 64, "int4", family="qwen3"),
    "gptq, experts": gptq(4, 32, "int4", family="qwen3_moe"),
    "gptq, 2 bits": gptq(2, 64, "int4"),
    "gptq, 3 bits": gptq(3, 32, "int4"),
    "gptq, 8 bits": gptq(8, 32),
    "gptq, 8 bits in rows": gptq(8, -1, "int8"),
    "gptq, uneven": gptq(4, 32, symmetric=False),
    "gptq, uneven, version 2": gptq(4, 32, symmetric=False, version=2),
    "gptq, ordered by activations": gptq(4, 32, act_order=True),
    "awq": awq(32),
    "awq, even": awq(64, "int4", symmetric=True),
    "nf4": nf4(64),
    "nf4, nested": nf4(64, nested=True, family="qwen3"),
    "nf4, blocks that go on from row to row": nf4(256, storage=torch.bfloat16),
    "int8 of bitsandbytes": Release(
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, pack_rows, "int8"
    ),
    "nvfp4 of modelopt": Release(
        {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
        pack_modelopt,
        name="ModelOpt, NVFP4",
    ),
}

"""Small random models as quantised releases hold them, packed by the libraries that define the formats, and what each
matrix is worth by those libraries' own dequantisation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import tiny
import torch
from torch import Tensor

SINGLE = "model.safetensors"
Packed = tuple[dict[str, Tensor], Tensor]  # parts by role, and the matrix that they mean


@dataclass(frozen=True)
class Release:
    """A way of packing: what config.json says, and a function from a bfloat16 matrix (out, in) to parts and values."""

    config: dict[str, Any]
    pack: Callable[[Tensor], Packed]
    kept: str | None = None  # the layout that holds it exactly
    name: str = ""  # as messages call it
    everything: bool = False  # embedding and head too
    qwen3: bool = False  # instead of llama


def save_release(release: Release, folder: Path, save: Callable[[Path], Path]) -> dict[str, Tensor]:
    """Pack the projections of the model that `save` writes; the weights of the release by the model's own names."""
    save(folder)
    tensors = safetensors.torch.load_file(folder / SINGLE)
    stored: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and (release.everything or ".layers." in name):
            parts, meant[name] = release.pack(tensor)
            stored |= {name.removesuffix("weight") + role: part.contiguous() for role, part in parts.items()}
        else:
            stored[name] = meant[name] = tensor
    safetensors.torch.save_file(stored, folder / SINGLE, {"format": "pt"})
    tiny.edit_json(folder / "config.json", **json.loads(json.dumps(release.config)))
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return meant


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


# FP8, by transformers


def pack_fp8(weight: Tensor, role: str, block: tuple[int, int] | None, dtype: torch.dtype = torch.float32) -> Packed:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize  # noqa: PLC0415

    high, wide = block or weight.shape
    grid = weight.float().reshape(weight.shape[0] // high, high, weight.shape[1] // wide, wide)
    scales = (grid.abs().amax((1, 3)) / 448).to(dtype)
    codes = (grid / scales.float()[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
    meant = Fp8Dequantize(None)._dequantize_one(codes, scales, torch.float32)
    return {"weight": codes, role: scales if block else scales.reshape(())}, meant


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
        meant = compressor.decompress({**parts, "weight_scale": scales}, scheme)["weight"].float()
    else:
        codes = unpack_fp4_from_uint8(parts["weight_packed"], rows, columns, dtype=torch.float32)
        meant = dequantize(codes, parts["weight_scale"].float(), args=args, dtype=torch.float32, global_scale=overall)
    assert torch.equal(meant.to(rounded.dtype), rounded)  # the library computes in bfloat16
    return parts, meant


def compressed(kind: str, kept: str | None = None, *, qwen3: bool = False, **arguments: Any) -> Release:
    groups = {"group_0": {"targets": ["Linear"], "weights": arguments, "input_activations": None}}
    config = {"quant_method": "compressed-tensors", "format": kind, "config_groups": groups, "ignore": ["lm_head"]}
    pack = partial(pack_compressed, kind=kind, arguments=arguments)
    return Release({"quantization_config": config}, pack, kept, f"compressed-tensors, {kind}", qwen3=qwen3)


def fp8(role: str, block: tuple[int, int] | None, dtype: torch.dtype, *, qwen3: bool = False, **config: Any) -> Release:
    pack = partial(pack_fp8, role=role, block=block, dtype=dtype)
    return Release({"quantization_config": {"quant_method": "fp8", **config}}, pack, name="FP8", qwen3=qwen3)


RELEASES: dict[str, Release] = {
    "fp8, blocks": fp8("weight_scale_inv", (32, 32), torch.float32, weight_block_size=[32, 32]),
    "fp8, blocks of bfloat16 scales": fp8(
        "weight_scale_inv", (32, 16), torch.bfloat16, qwen3=True, weight_block_size=[32, 16]
    ),
    "fp8, one scale": fp8("weight_scale_inv", None, torch.bfloat16, weight_block_size=None),
    "fp8, one scale of another name": fp8("weight_scale", None, torch.float32, activation_scheme="static"),
    "int4, groups of 32": compressed("pack-quantized", "int4", num_bits=4, strategy="group", group_size=32),
    "int4, groups of 64": compressed("pack-quantized", "int4", num_bits=4, strategy="group", group_size=64),
    "int4, rows": compressed("pack-quantized", "int4", num_bits=4, strategy="channel"),
    "int4, groups of 16": compressed("pack-quantized", num_bits=4, strategy="group", group_size=16),
    "int4, uneven": compressed("pack-quantized", num_bits=4, strategy="group", group_size=32, symmetric=False),
    "int3, groups of 32": compressed("pack-quantized", "int4", num_bits=3, strategy="group", group_size=32),
    "int6, groups of 32": compressed("pack-quantized", num_bits=6, strategy="group", group_size=32),
    "int8, packed rows": compressed("pack-quantized", "int8", num_bits=8, strategy="channel"),
    "int8, uneven packed rows": compressed("pack-quantized", num_bits=8, strategy="channel", symmetric=False),
    "int8, packed groups": compressed("pack-quantized", num_bits=8, strategy="group", group_size=64),
    "int8, rows": compressed("int-quantized", "int8", num_bits=8, strategy="channel"),
    "int8, uneven rows": compressed("int-quantized", num_bits=8, strategy="channel", symmetric=False),
    "int8, one scale": compressed("int-quantized", "int8", num_bits=8, strategy="tensor"),
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
}

"""Matrices packed as the documents of MLX, GPTQ, AWQ, bitsandbytes and ModelOpt say, bit by bit, and what they mean.

Sources: ml-explore.github.io/mlx (mlx.core.quantize); AutoGPTQ's QuantLinear.pack; AutoAWQ's WQLinear_GEMM;
bitsandbytes' functional.py; NVIDIA's Model Optimizer. None of these libraries is needed: tests/peers/ asks one of them.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

Packed = tuple[dict[str, Tensor], Tensor]  # parts by role, and the matrix (out, in) that they mean
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


def words(codes: Tensor, bits: int, dtype: torch.dtype = torch.int32) -> Tensor:
    """Rows of codes, each code's bits behind those of the one before it, as rows of words of 32."""
    places = (codes.numpy().astype(np.uint8)[..., None] >> np.arange(bits)) & 1
    rows = np.packbits(places.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    return torch.from_numpy(rows.copy().view(np.int32)).view(dtype)


def by_group(weight: Tensor, group: int) -> Tensor:
    """(out, groups, group) in float32."""
    return weight.float().reshape(len(weight), -1, group)


def pack_mlx(weight: Tensor, bits: int, group: int, dtype: torch.dtype = torch.bfloat16) -> Packed:
    groups = by_group(weight, group)
    least, greatest = groups.amin(2), groups.amax(2)
    biases, scales = least.to(dtype), ((greatest - least) / (2**bits - 1)).to(dtype)
    scale, bias = scales.float()[..., None], biases.float()[..., None]
    codes = ((groups - bias) / scale).round().clamp(0, 2**bits - 1)
    reference = (codes * scale + bias).reshape(weight.shape)
    packed = words(codes.reshape(weight.shape), bits, torch.uint32)
    if bits in (2, 4, 8):  # the same layout, which transformers reads too
        from transformers.integrations.metal_quantization import _affine_dequantize_tensor  # noqa: PLC0415

        assert torch.equal(_affine_dequantize_tensor(packed, scales, biases, group, bits), reference)
    return {"weight": packed, "scales": scales, "biases": biases}, reference


def pack_mlx_floats(weight: Tensor, bits: int) -> Packed:
    """mxfp4 and mxfp8: powers of 2 for groups of 32."""
    groups = by_group(weight, 32)
    most = 6 if bits == 4 else 448
    powers = (groups.abs().amax(2) / most).log2().ceil().clamp(-126, 126)
    scaled = groups / powers.exp2()[..., None]
    if bits == 4:
        codes = nearest(scaled, E2M1)
        values = torch.tensor(E2M1)[codes]
    else:
        floats = scaled.to(torch.float8_e4m3fn)
        codes, values = floats.view(torch.uint8), floats.float()
    reference = (values * powers.exp2()[..., None]).reshape(weight.shape)
    packed = words(codes.reshape(weight.shape), bits, torch.uint32)
    return {"weight": packed, "scales": (powers + 127).to(torch.uint8)}, reference


def nearest(numbers: Tensor, table: tuple[float, ...]) -> Tensor:
    """The code of the nearest value in a table."""
    return (numbers[..., None] - torch.tensor(table)).abs().argmin(-1)


def uneven(weight: Tensor, bits: int, group: int, *, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (out, groups, group), and scales in float16 and zeros (out, groups, 1)."""
    groups, most = by_group(weight, group), 2**bits - 1
    if symmetric:
        scales = (2 * groups.abs().amax(2, keepdim=True) / most).half()
        zeros = torch.full_like(scales, 2 ** (bits - 1)).float()
    else:
        least = groups.amin(2, keepdim=True)
        scales = ((groups.amax(2, keepdim=True) - least) / most).half()
        zeros = (-least / scales.float()).round().clamp(1, most)
    codes = ((groups / scales.float()).round() + zeros).clamp(0, most)
    return codes, scales, zeros


def pack_gptq(
    weight: Tensor, bits: int, group: int, *, symmetric: bool = True, version: int = 1, act_order: bool = False
) -> Packed:
    columns = weight.shape[1]
    group = columns if group == -1 else group
    order = torch.randperm(columns, generator=torch.Generator().manual_seed(columns)) if act_order else None
    codes, scales, zeros = uneven(weight if order is None else weight[:, order], bits, group, symmetric=symmetric)
    reference = ((codes - zeros) * scales.float()).reshape(weight.shape)
    codes = codes.reshape(weight.shape)
    group_of = torch.arange(columns, dtype=torch.int32) // group
    if order is not None:  # groups are of neighbours in another order of the inputs
        back = order.argsort()
        reference, codes, group_of = reference[:, back], codes[:, back], group_of[back]
    parts = {
        "qweight": words(codes, bits).T,
        "qzeros": words(zeros[..., 0].T - int(version == 1), bits),
        "scales": scales[..., 0].T,
        "g_idx": group_of,
    }
    return parts, reference


def pack_awq(weight: Tensor, group: int, *, symmetric: bool = False) -> Packed:
    codes, scales, zeros = uneven(weight, 4, group, symmetric=symmetric)
    reference = ((codes - zeros) * scales.float()).reshape(weight.shape)
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def pack(rows: Tensor) -> Tensor:
        return words(rows.reshape(len(rows), -1, 8)[..., order].reshape(rows.shape), 4)

    codes = codes.reshape(weight.shape).T
    return {"qweight": pack(codes), "qzeros": pack(zeros[..., 0].T), "scales": scales[..., 0].T}, reference


def pack_4_bits(weight: Tensor, block: int, *, nested: bool = False, storage: torch.dtype = torch.uint8) -> Packed:
    """nf4 of bitsandbytes, whose blocks go on from row to row."""
    size = weight.numel()
    flat = torch.nn.functional.pad(weight.float().reshape(-1), (0, -size % block)).reshape(-1, block)
    scales = flat.abs().amax(1)
    parts: dict[str, Tensor] = {}
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": list(weight.shape)}
    if nested:
        table, offset = torch.linspace(-1, 1, 256), scales.mean()
        inner = torch.nn.functional.pad(scales - offset, (0, -len(scales) % 256)).reshape(-1, 256)
        most = inner.abs().amax(1)
        codes = (inner / most[:, None] * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).reshape(-1)[: len(scales)]
        scales = table[codes.long()] * most.repeat_interleave(256)[: len(scales)] + offset
        parts |= {"weight.absmax": codes, "weight.nested_absmax": most, "weight.nested_quant_map": table}
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset.item()}
    else:
        parts["weight.absmax"] = scales
    codes = nearest(flat / flat.abs().amax(1, keepdim=True), NF4)
    reference = (torch.tensor(NF4)[codes] * scales[:, None]).reshape(-1)[:size].reshape(weight.shape)
    pairs = codes.reshape(-1)[: size + size % 2].reshape(-1, 2).to(torch.uint8)
    parts["weight"] = (pairs[:, 0] << 4 | pairs[:, 1]).view(storage).reshape(-1, 1)
    parts["weight.quant_map"] = torch.tensor(NF4)
    content = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
    return {**parts, "weight.quant_state.bitsandbytes__nf4": content}, reference


def pack_rows(weight: Tensor) -> Packed:
    """int8 of bitsandbytes."""
    scales = weight.float().abs().amax(1)
    codes = (weight.float() / scales[:, None] * 127).round().to(torch.int8)
    parts = {"weight": codes, "SCB": scales, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return parts, codes.float() * (scales / 127)[:, None]


def pack_modelopt(weight: Tensor) -> Packed:
    """NVFP4: groups of 16."""
    groups = by_group(weight, 16)
    overall = groups.abs().max() / (6 * 448)
    scales = (groups.abs().amax(2) / 6 / overall).to(torch.float8_e4m3fn)
    scale = (scales.float() * overall)[..., None]
    codes = nearest(groups / scale, E2M1)
    reference = (torch.tensor(E2M1)[codes] * scale).reshape(weight.shape)
    pairs = codes.reshape(len(weight), -1, 2).to(torch.uint8)
    packed = pairs[..., 0] | pairs[..., 1] << 4
    parts = {"weight": packed, "weight_scale": scales, "weight_scale_2": overall, "input_scale": torch.ones(())}
    return parts, reference


def pack_ordered(weight: Tensor, group: int) -> Packed:
    """compressed-tensors of early versions, whose groups are of neighbours in another order of the inputs."""
    parts, reference = pack_gptq(weight, 4, group, act_order=True)
    codes, scales = (reference / scale_of_each(parts)).round() + 8, parts["scales"].T
    shape = torch.tensor(weight.shape)
    packed = {"weight_packed": words(codes, 4), "weight_scale": scales, "weight_g_idx": parts["g_idx"]}
    return {**packed, "weight_shape": shape}, reference


def scale_of_each(parts: dict[str, Tensor]) -> Tensor:
    """(out, in)."""
    return parts["scales"].T.float()[:, parts["g_idx"].long()]


def pack_early_zeros(weight: Tensor, group: int) -> Packed:
    """compressed-tensors of early versions, which kept zeros in bytes with a sign."""
    codes, scales, zeros = uneven(weight, 4, group, symmetric=False)
    reference = ((codes - zeros) * scales.float()).reshape(weight.shape)
    packed = {"weight_packed": words(codes.reshape(weight.shape), 4), "weight_scale": scales[..., 0]}
    zero_points = (zeros[..., 0] - 8).to(torch.int8)
    return {**packed, "weight_zero_point": zero_points, "weight_shape": torch.tensor(weight.shape)}, reference


def pack_every_byte(weight: Tensor) -> Packed:
    """Codes from -128 to 127 of compressed-tensors."""
    chance = torch.Generator().manual_seed(weight.numel())
    codes = torch.randint(-128, 128, weight.shape, generator=chance, dtype=torch.int8)
    scales = torch.full((len(weight), 1), 0.004)
    return {"weight": codes, "weight_scale": scales}, codes.float() * scales

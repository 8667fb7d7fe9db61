"""compressed-tensors, as llm-compressor and vLLM write them; which of its formats a matrix has, its parts tell.

    int-quantized, float-quantized   weight (out, in) of I8 or F8_E4M3, and weight_scale
    pack-quantized                   weight_packed (out, words), weight_scale, and for uneven codes weight_zero_point
    nvfp4-pack-quantized             weight_packed (out, in / 2), weight_scale of F8_E4M3, and weight_global_scale
    mxfp4-pack-quantized             weight_packed (out, in / 2), and weight_scale of powers of 2

Source: github.com/vllm-project/compressed-tensors, compressors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from tokenglass.model.checkpoint.arrays import E4M3
from tokenglass.model.checkpoint.formats.coded import CodedMatrix, Floats
from tokenglass.model.checkpoint.formats.fp4 import BYTES, read_mxfp4, read_nvfp4
from tokenglass.model.checkpoint.formats.fp8 import read_fp8
from tokenglass.model.checkpoint.formats.method import WEIGHT, Method, Sizes, known_value
from tokenglass.model.checkpoint.formats.numbers import unpack_bits
from tokenglass.model.checkpoint.formats.parts import INTEGERS, WORDS, Parts
from tokenglass.model.checkpoint.formats.scales import ALL, MATRIX, ROW, Block, block_of, spread
from tokenglass.model.config.fields import Fields
from tokenglass.model.errors import ConfigError

INT8 = (np.dtype(np.int8),)
PACKED, SCALE, ZERO, GLOBAL = "weight_packed", "weight_scale", "weight_zero_point", "weight_global_scale"
SHAPE, GROUP_OF = "weight_shape", "weight_g_idx"
ROLES = (WEIGHT, PACKED, SCALE, ZERO, GLOBAL, SHAPE, GROUP_OF)
ORDERS = ("group", "dynamic", True)  # of the inputs, by their activations: what is stored is in another
FORMATS = (
    *("int-quantized", "float-quantized", "naive-quantized", "pack-quantized", "nvfp4-pack-quantized"),
    *("mxfp4-pack-quantized", "mixed-precision", "dense"),
)


def compressed_tensors(fields: Fields) -> Method:
    """The method of a quantization_config. Raises ConfigError."""
    kind = known_value(fields, "format", FORMATS, "dense")
    for key in ("sparsity_config", "transform_config"):
        inner = fields.part(key)
        if inner.raw and inner.raw.get("format") != "dense":
            raise ConfigError(f"{fields.where}: {key} is not read; take a release of the model without it")
    weights = weights_of(fields)
    sizes = Sizes.of([each.raw for each in weights], f"{fields.where}: weights", bits_key="num_bits")
    kinds = Kinds(
        sizes.bits,
        [block_of_weights(each) for each in weights],
        has_zeros=not any(each.boolean("symmetric", True) for each in weights),
        has_order=any(each.get("actorder") in ORDERS for each in weights),
    )
    return Method(f"compressed-tensors, {kind}, {sizes}", ROLES, lambda parts: read_compressed(parts, kinds))


@dataclass(frozen=True, slots=True)
class Kinds:
    """What a config says of weights, of all groups of modules together."""

    bits: Collection[int]
    blocks: Collection[Block]  # that share a scale
    has_zeros: bool  # every matrix has
    has_order: bool  # of its inputs


def weights_of(fields: Fields) -> list[Fields]:
    """What is said of the weights of each group of modules."""
    groups = fields.part("config_groups").raw.values()
    weights = [group.get("weights") for group in groups if isinstance(group, Mapping)]
    return [Fields(raw, f"{fields.where}: weights") for raw in weights if isinstance(raw, Mapping)]


def block_of_weights(weights: Fields) -> Block:
    """Which weights share a scale: what the strategy says, or where there is none, the group size."""
    group = weights.integer("group_size", 0)
    usual = "group" if group > 0 else "channel" if group == ALL else "tensor"
    strategy = known_value(weights, "strategy", ("tensor", "channel", "group", "tensor_group", "block"), usual)
    if strategy == "block":
        return block_of(weights, "block_structure") or MATRIX
    return MATRIX if strategy == "tensor" else ROW if strategy == "channel" or group < 1 else (1, group)


def read_compressed(parts: Parts, kinds: Kinds) -> CodedMatrix:
    """A matrix in any of the formats."""
    if PACKED not in parts:
        is_float = WEIGHT in parts and parts.arrays[WEIGHT].dtype == E4M3
        return read_fp8(parts, kinds.blocks) if is_float else read_bytes(parts, kinds)
    if parts.arrays[PACKED].dtype != BYTES:
        return read_packed(parts, kinds)
    return read_nvfp4(parts, PACKED, GLOBAL, divide=True) if GLOBAL in parts else read_mxfp4(parts, PACKED, SCALE)


def read_bytes(parts: Parts, kinds: Kinds) -> CodedMatrix:
    """weight = (code - zero) * scale, of codes from -128 to 127."""
    weight = parts.array(WEIGHT, INT8, parts.shape)
    scales, group = spread(parts, SCALE, kinds.blocks)
    has_zeros = ZERO in parts or kinds.has_zeros
    zeros = spread(parts, ZERO, kinds.blocks, INT8)[0] if has_zeros else np.zeros_like(scales)
    if zeros.shape != scales.shape:
        raise parts.wrong(f"{ZERO} is {list(parts.arrays[ZERO].shape)}, {SCALE} {list(parts.arrays[SCALE].shape)}")
    return CodedMatrix(parts.shape, 8, lambda some: weight[some], scales, group, zeros if zeros.any() else None)


def read_packed(parts: Parts, kinds: Kinds) -> CodedMatrix:
    """weight = (code - zero) * scale, of codes that lie bit behind bit; zero is the middle where none is stored."""
    rows, columns = parts.shape
    units = parts.columns(PACKED)
    bits = parts.fitting(PACKED, {bits: -(-columns * bits // 32) for bits in kinds.bits}, units, "number of bits")
    packed = parts.array(PACKED, WORDS, (rows, units))
    if SHAPE in parts and parts.array(SHAPE, INTEGERS, (2,)).tolist() != [rows, columns]:
        raise parts.wrong(f"{SHAPE} is {parts.arrays[SHAPE].tolist()}, expected {[rows, columns]}")
    scales, group = spread(parts, SCALE, kinds.blocks)
    if kinds.has_order and GROUP_OF not in parts:
        raise parts.wrong(f"{GROUP_OF} is missing")
    group_of = parts.group_of(GROUP_OF, group, scales.shape[1])
    zeros = packed_zeros(parts, bits, scales.shape[1], kinds.has_zeros)
    return CodedMatrix(
        parts.shape,
        bits,
        lambda some: unpack_bits(packed[some], bits, columns),
        scales,
        group,
        zeros,
        group_of=group_of,
    )


def packed_zeros(parts: Parts, bits: int, groups: int, has_zeros: bool) -> Floats:
    """Zeros (out, groups), which lie bit behind bit down the columns; early files hold them in bytes with a sign."""
    rows, middle = parts.shape[0], 2 ** (bits - 1)
    if ZERO not in parts and not has_zeros:
        return np.full((rows, groups), middle, np.float32)
    if ZERO in parts and parts.arrays[ZERO].dtype in INT8:
        return parts.array(ZERO, INT8, (rows, groups)).astype(np.float32) + middle
    stored = parts.array(ZERO, WORDS, (-(-rows * bits // 32), groups))
    return unpack_bits(stored.T, bits, rows).T.astype(np.float32)

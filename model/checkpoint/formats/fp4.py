"""Floats of 4 bits, two in a byte, the lower half first: NVFP4 and MXFP4.

    NVFP4   groups of 16, a scale of F8_E4M3 for each, and one float32 for the matrix
    MXFP4   groups of 32, a power of 2 for each

Sources: the OCP "Microscaling Formats (MX)" specification, version 1.0; NVIDIA's "Introducing NVFP4".
"""

from __future__ import annotations

import numpy as np

from tokenglass.model.checkpoint.arrays import E4M3, E8M0
from tokenglass.model.checkpoint.formats.coded import CodedMatrix, Floats
from tokenglass.model.checkpoint.formats.method import Method
from tokenglass.model.checkpoint.formats.numbers import decode, e2m1, unpack_bits
from tokenglass.model.checkpoint.formats.parts import Parts
from tokenglass.model.config.fields import Fields

NVFP4_GROUP, MXFP4_GROUP = 16, 32
BYTES = np.dtype(np.uint8)


def read_nvfp4(parts: Parts, packed: str, global_scale: str, *, divide: bool) -> CodedMatrix:
    """A matrix with one more scale for all of it, by which the groups' scales are divided or multiplied."""
    rows, columns = parts.shape
    scales = parts.floats("weight_scale", (rows, -(-columns // NVFP4_GROUP)), dtypes=(E4M3,))
    overall = parts.floats(global_scale, (), (1,)).reshape(1, 1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scales = scales / overall if divide else scales * overall
    return fp4(parts, packed, scales, NVFP4_GROUP)


def read_mxfp4(parts: Parts, packed: str, scale: str) -> CodedMatrix:
    """A matrix whose groups have powers of 2, which a file may call bytes."""
    rows, columns = parts.shape
    powers = parts.array(scale, (BYTES, E8M0), (rows, -(-columns // MXFP4_GROUP)))
    return fp4(parts, packed, decode(powers.view(E8M0)), MXFP4_GROUP)


def fp4(parts: Parts, packed: str, scales: Floats, group: int) -> CodedMatrix:
    """Codes (out, in / 2) with these scales."""
    rows, columns = parts.shape
    codes = parts.array(packed, (BYTES,), (rows, -(-columns // 2)))
    return CodedMatrix(parts.shape, 4, lambda some: unpack_bits(codes[some], 4, columns), scales, group, values=e2m1())


def mxfp4(_: Fields) -> Method:
    """The method of gpt_oss's releases."""
    return Method("MXFP4", ("blocks", "scales"), read_experts, stacked=True)


def read_experts(parts: Parts) -> CodedMatrix:
    """The matrices of all experts: blocks (experts, out, groups, 16) of bytes, and scales (experts, out, groups)."""
    rows, columns = parts.shape
    shape = (parts.experts, rows // parts.experts, -(-columns // MXFP4_GROUP))
    flat = {
        "blocks": parts.array("blocks", (BYTES,), (*shape, MXFP4_GROUP // 2)).reshape(rows, -1),
        "scales": parts.array("scales", (BYTES, E8M0), shape).reshape(rows, -1),
    }
    return read_mxfp4(Parts(parts.name, parts.shape, flat), "blocks", "scales")

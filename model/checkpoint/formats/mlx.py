"""MLX: weight = code * scale + bias, codes of 2 to 8 bits that lie bit behind bit; or floats of 4 and 8 bits in groups.

    affine   weight (out, words of 32 bits), scales and biases (out, groups)
    mxfp4    weight the same, scales of bytes, powers of 2, for groups of 32; mxfp8 likewise

Source: ml-explore.github.io/mlx, mlx.core.quantize.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tokenglass.model.checkpoint.arrays import E8M0, Array
from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.formats.fp4 import MXFP4_GROUP
from tokenglass.model.checkpoint.formats.method import WEIGHT, Method, Sizes, known_value
from tokenglass.model.checkpoint.formats.numbers import decode, e2m1, e4m3, unpack_bits
from tokenglass.model.checkpoint.formats.parts import WORDS, Parts
from tokenglass.model.checkpoint.formats.scales import group_size
from tokenglass.model.config.fields import Fields

SCALES, BIASES = "scales", "biases"
MODES = ("affine", "mxfp4", "mxfp8")


def mlx(fields: Fields) -> Method:
    """The method of a config.json's quantization, in which modules may have sizes of their own. Raises ConfigError."""
    objects = [fields.raw, *(raw for raw in fields.raw.values() if isinstance(raw, Mapping))]
    modes = {known_value(Fields(raw, fields.where), "mode", MODES, "affine") for raw in objects}
    sizes = Sizes.of(objects, fields.where)
    name = f"MLX, {' and '.join(sorted(modes))}, {sizes}"
    return Method(name, (WEIGHT, SCALES, BIASES), lambda parts: read_mlx(parts, sizes))


def read_mlx(parts: Parts, sizes: Sizes) -> CodedMatrix:
    """A matrix in any of the modes: those without biases are of floats."""
    rows, columns = parts.shape
    words = parts.columns(WEIGHT)
    bits = parts.fitting(WEIGHT, {bits: columns * bits // 32 for bits in sizes.bits}, words, "number of bits")
    packed: Array = parts.array(WEIGHT, WORDS, (rows, words))

    def codes(some: slice) -> Array:
        return unpack_bits(packed[some], bits, columns)

    if BIASES in parts:
        grouped = (rows, parts.columns(SCALES))
        group = group_size(parts, SCALES, sizes.groups, grouped[1])
        scales, offsets = (parts.floats(role, grouped) for role in (SCALES, BIASES))
        return CodedMatrix(parts.shape, bits, codes, scales, group, offsets=offsets)
    if bits not in (4, 8):
        raise parts.wrong(f"{BIASES} is missing")
    powers = parts.array(SCALES, (np.dtype(np.uint8), E8M0), (rows, -(-columns // MXFP4_GROUP)))
    values = e2m1() if bits == 4 else e4m3()
    return CodedMatrix(parts.shape, bits, codes, decode(powers.view(E8M0)), MXFP4_GROUP, values=values)

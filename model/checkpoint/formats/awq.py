"""AWQ, as AutoAWQ writes it for its product of matrices (version GEMM): weight = (code - zero) * scale, of 4 bits.

    qweight   words (in, out / 8), qzeros words (groups, out / 8), scales (groups, out)

The eight codes of a word are those of outputs 0, 2, 4, 6, 1, 3, 5, 7, from the lowest bits.

Sources: Lin et al. 2023, arXiv 2306.00978; github.com/casper-hansen/AutoAWQ, WQLinear_GEMM.
"""

from __future__ import annotations

import numpy as np

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.formats.gptq import CODES, SCALES, ZEROS
from tokenglass.model.checkpoint.formats.method import Method, Sizes, known_value
from tokenglass.model.checkpoint.formats.numbers import unpack_bits
from tokenglass.model.checkpoint.formats.parts import WORDS, Parts
from tokenglass.model.checkpoint.formats.scales import group_size
from tokenglass.model.config.fields import Fields
from tokenglass.model.errors import ConfigError

BITS = 4
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # in a word, of outputs 0 to 7


def awq(fields: Fields) -> Method:
    """The method of a quantization_config. Raises ConfigError."""
    key = "version" if fields.get("version") is not None else "format"
    known_value(fields, key, ("gemm",), "gemm")
    sizes = Sizes.of([fields.raw], fields.where, bits_key="w_bit" if "w_bit" in fields.raw else "bits")
    if sizes.bits != {BITS}:
        raise ConfigError(
            f"{fields.where}: AWQ of {sizes} is not read (read: 4 bits); take another release of the model"
        )
    return Method(f"AWQ, {sizes}", (CODES, ZEROS, SCALES), lambda parts: read_awq(parts, sizes))


def read_awq(parts: Parts, sizes: Sizes) -> CodedMatrix:
    """A matrix (out, in), of which all parts are stored transposed."""
    rows, columns = parts.shape
    words = -(-rows // 8)
    packed = parts.array(CODES, WORDS, (columns, words))
    groups = parts.rows(SCALES)
    group = group_size(parts, SCALES, sizes.groups, groups)
    zeros = unpack(parts.array(ZEROS, WORDS, (groups, words)), slice(0, rows)).astype(np.float32)
    scales = parts.floats(SCALES, (groups, rows)).T
    return CodedMatrix(parts.shape, BITS, lambda some: unpack(packed, some), scales, group, zeros)


def unpack(words: Array, some: slice) -> Array:
    """Codes (outputs, rows) of some outputs, from a multiple of 8 on, out of words (rows, out / 8)."""
    part = words[:, some.start // 8 : -(-some.stop // 8)]
    codes = np.ascontiguousarray(unpack_bits(part, BITS, 8 * part.shape[1]).T)
    return codes.reshape(-1, 8, len(part))[:, PLACES].reshape(-1, len(part))[: some.stop - some.start]

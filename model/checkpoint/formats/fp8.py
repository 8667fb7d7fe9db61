"""Floats of 8 bits with a scale for a matrix, a row, or a block: weight = value of its byte * scale.

Sources: transformers' "fp8" and "fbgemm_fp8" quantisation; the card of DeepSeek-V3 for blocks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tokenglass.model.checkpoint.arrays import E4M3
from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.formats.method import WEIGHT, Method, known_value
from tokenglass.model.checkpoint.formats.numbers import e4m3
from tokenglass.model.checkpoint.formats.parts import Parts
from tokenglass.model.checkpoint.formats.scales import MATRIX, ROW, Block, block_of, spread
from tokenglass.model.config.fields import Fields

SCALES = ("weight_scale_inv", "weight_scale")  # a code is multiplied by either


def fp8(fields: Fields) -> Method:
    """The method of a quantization_config. Raises ConfigError."""
    known_value(fields, "fmt", ("e4m3",), "e4m3")
    block = block_of(fields, "weight_block_size")
    text = "" if block is None else f" in blocks of {block[0]} by {block[1]}"
    blocks = (MATRIX, ROW) if block is None else (block,)
    return Method(f"FP8{text}", (WEIGHT, *SCALES), lambda parts: read_fp8(parts, blocks))


def read_fp8(parts: Parts, blocks: Iterable[Block] = (MATRIX, ROW)) -> CodedMatrix:
    """A matrix whose weight is (out, in) of F8_E4M3."""
    weight = parts.array(WEIGHT, (E4M3,), parts.shape)
    role = next((role for role in SCALES if role in parts), SCALES[-1])
    scales, group = spread(parts, role, blocks)
    return CodedMatrix(parts.shape, 8, lambda some: weight[some].view(np.uint8), scales, group, values=e4m3())

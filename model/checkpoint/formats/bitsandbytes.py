"""bitsandbytes: 4-bit codes from a table, with a scale for each block of a matrix read row by row; or bytes by rows.

    4 bits   weight (out * in / 2, 1), the upper half of a byte first; weight.absmax, weight.quant_map, and JSON in
             weight.quant_state.bitsandbytes__nf4 or __fp4; where scales are quantised too, weight.nested_absmax and
             weight.nested_quant_map
    8 bits   weight (out, in) and SCB (out,): weight = code * SCB / 127

Sources: Dettmers et al. 2023, arXiv 2305.14314; github.com/bitsandbytes-foundation/bitsandbytes, functional.py.
"""

from __future__ import annotations

import numpy as np

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.formats.coded import CodedMatrix, Floats
from tokenglass.model.checkpoint.formats.method import WEIGHT, Method
from tokenglass.model.checkpoint.formats.numbers import unpack_bits
from tokenglass.model.checkpoint.formats.parts import FLOATS, Parts
from tokenglass.model.config.fields import Fields
from tokenglass.model.errors import CheckpointError
from tokenglass.model.files import parse_json

BYTES, INT8 = (np.dtype(np.uint8),), (np.dtype(np.int8),)
SCALE, TABLE, ROW_SCALES, ORDER = "weight.absmax", "weight.quant_map", "SCB", "weight_format"
NESTED_SCALE, NESTED_TABLE = "weight.nested_absmax", "weight.nested_quant_map"
STATES = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
MOST_STATE = 4096  # bytes
MOST_BLOCK = 2**16


def bitsandbytes(fields: Fields) -> Method:
    """The method of a quantization_config. Raises ConfigError."""
    eight = fields.boolean("load_in_8bit") or fields.boolean("_load_in_8bit")
    kind = "int8" if eight else fields.text("bnb_4bit_quant_type", "fp4").upper()
    nested = ", nested" if not eight and fields.boolean("bnb_4bit_use_double_quant") else ""
    roles = (WEIGHT, SCALE, TABLE, NESTED_SCALE, NESTED_TABLE, *STATES, ROW_SCALES, ORDER)
    return Method(f"bitsandbytes, {kind}{nested}", roles, read_bitsandbytes)


def read_bitsandbytes(parts: Parts) -> CodedMatrix:
    """A matrix of 4 or 8 bits."""
    return read_int8(parts) if ROW_SCALES in parts else read_4_bits(parts)


def read_int8(parts: Parts) -> CodedMatrix:
    """Bytes with a scale for each row."""
    rows, _ = parts.shape
    weight = parts.array(WEIGHT, INT8, parts.shape)
    if ORDER in parts and parts.array(ORDER, BYTES, (), (1,)).any():
        raise parts.wrong(f"{ORDER} is another than row by row; save the model again with a newer bitsandbytes")
    scales = parts.floats(ROW_SCALES, (rows,)).reshape(rows, 1) / np.float32(127)
    return CodedMatrix(parts.shape, 8, lambda some: weight[some], scales, parts.shape[1])


def read_4_bits(parts: Parts) -> CodedMatrix:
    """Codes of blocks that go on from row to row."""
    rows, columns = parts.shape
    size = rows * columns
    state = state_of(parts)
    block = state.integer("blocksize")
    if state.get("shape") != [rows, columns] or not 1 <= block <= MOST_BLOCK:
        raise parts.wrong(f"its state says shape {state.get('shape')!a:.40}, blocksize {block}")
    packed = stored_bytes(parts, -(-size // 2))
    values = parts.floats(TABLE, (16,))
    scales = block_scales(parts, state, -(-size // block))
    group = block
    if columns % block:  # a block has parts of two rows
        scales, group = np.repeat(scales, block)[:size], 1

    def codes(some: slice) -> Array:
        start, stop = some.start * columns, some.stop * columns
        halves = unpack_bits(packed[:, start // 2 : -(-stop // 2)], 4, 2 * packed.size).reshape(-1, 2)
        return halves[:, ::-1].reshape(-1)[: stop - start].reshape(-1, columns)

    return CodedMatrix(parts.shape, 4, codes, scales.reshape(rows, -1), group, values=values)


def state_of(parts: Parts) -> Fields:
    """The JSON object of a matrix."""
    role = next((role for role in STATES if role in parts), STATES[0])
    array = parts.arrays.get(role, np.empty(0, np.uint8))
    if array.size > MOST_STATE:
        raise parts.wrong(f"{role} has {array.size:,} bytes")
    content = parts.array(role, BYTES, (array.size,)).tobytes()
    return Fields(parse_json(content, f"{parts.name}: {role}", CheckpointError), f"{parts.name}: {role}")


def stored_bytes(parts: Parts, count: int) -> Array:
    """The bytes of the weight (1, count), which may stand in a file as wider numbers."""
    dtype = parts.arrays[WEIGHT].dtype if WEIGHT in parts else BYTES[0]
    units = -(-count // dtype.itemsize)
    stored = parts.array(WEIGHT, (*BYTES, *FLOATS), (units, 1), (1, units))
    return np.ascontiguousarray(stored).view(np.uint8).reshape(1, -1)


def block_scales(parts: Parts, state: Fields, blocks: int) -> Floats:
    """A scale for each block (blocks,), which may be a byte from a table, times a scale of its own, plus an offset."""
    if NESTED_SCALE not in parts:
        return parts.floats(SCALE, (blocks,))
    block = state.integer("nested_blocksize")
    if not 1 <= block <= MOST_BLOCK:
        raise parts.wrong(f"its state says nested_blocksize {block}")
    codes = parts.array(SCALE, BYTES, (blocks,))
    nested = parts.floats(NESTED_SCALE, (-(-blocks // block),))
    scales: Floats = parts.floats(NESTED_TABLE, (256,))[codes] * np.repeat(nested, block)[:blocks]
    return scales + np.float32(state.number("nested_offset"))

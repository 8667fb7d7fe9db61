"""Scales as files hold them: one for a matrix, for each row, or for each block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tokenglass.model.checkpoint.arrays import E8M0
from tokenglass.model.checkpoint.formats.coded import Floats
from tokenglass.model.checkpoint.formats.numbers import decode
from tokenglass.model.checkpoint.formats.parts import FLOATS, Dtypes, Parts
from tokenglass.model.config.fields import Fields

Block = tuple[int, int]  # rows and columns that share a scale; ALL of either
ALL = -1
MATRIX, ROW = (ALL, ALL), (1, ALL)
MOST_BLOCK = 2**16


def block_of(fields: Fields, key: str) -> Block | None:
    """The block that a config names, as a list or like 128x128; None where it names none. Raises ConfigError."""
    value = fields.get(key)
    sizes = value.split("x") if isinstance(value, str) else value
    if sizes is None:
        return None
    if not isinstance(sizes, list) or len(sizes) != 2 or not all(str(size).isdecimal() for size in sizes):
        raise fields.wrong(key, "a list of 2 sizes")
    high, wide = (int(str(size)) for size in sizes)
    if not (1 <= high <= MOST_BLOCK and 1 <= wide <= MOST_BLOCK):
        raise fields.wrong(key, f"two numbers from 1 to {MOST_BLOCK:,}")
    return high, wide


def spread(parts: Parts, role: str, blocks: Iterable[Block], dtypes: Dtypes = (*FLOATS, E8M0)) -> tuple[Floats, int]:
    """Scales (out, groups), and how many columns a group has. The last block of a row or column may be cut short.

    Raises CheckpointError where there are none, or not as many as one of the possible blocks makes.
    """
    rows, columns = parts.shape
    possible = {shape: block for block in blocks for shape in shapes_of(block, rows, columns)}
    stored = parts.array(role, dtypes, *possible)
    high, wide = possible[stored.shape]
    scales = decode(stored).reshape(1 if high == ALL else -(-rows // high), -1)
    whole = columns if wide == ALL else wide
    return (np.broadcast_to(scales, (rows, 1)) if high == ALL else np.repeat(scales, high, axis=0)[:rows]), whole


def shapes_of(block: Block, rows: int, columns: int) -> Iterator[tuple[int, ...]]:
    """How the scales of such blocks may be laid out: what there is one of needs no dimension."""
    high, wide = block
    if block == MATRIX:
        yield from ((), (1,), (1, 1))
    elif block == ROW:
        yield from ((rows,), (rows, 1))
    else:
        yield (-(-rows // high), -(-columns // wide))


def group_size(parts: Parts, role: str, possible: Iterable[int], groups: int) -> int:
    """The columns of a group where a row has so many groups; of the possible sizes, ALL is a whole row.

    Raises CheckpointError where none of them makes as many.
    """
    columns = parts.shape[1]
    sizes = {columns if size == ALL else size for size in possible}
    return parts.fitting(role, {size: -(-columns // size) for size in sizes}, groups, "group size")

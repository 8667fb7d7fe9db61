"""Scales as files hold them: one for a matrix, for each row, or for each block."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tokenglass.model.checkpoint.arrays import E8M0
from tokenglass.model.checkpoint.formats.coded import Floats
from tokenglass.model.checkpoint.formats.numbers import decode
from tokenglass.model.checkpoint.formats.parts import FLOATS, Dtypes, Parts
from tokenglass.model.config.fields import Fields

Block = tuple[int, int]  # rows and columns that share a scale
MOST_BLOCK = 2**16


def block_of(fields: Fields, key: str) -> list[Block]:
    """The block that a config names, if it names one. Raises ConfigError."""
    sizes = fields.items(key, 2)
    if sizes is None:
        return []
    if not all(type(size) is int and 1 <= size <= MOST_BLOCK for size in sizes):
        raise fields.wrong(key, f"two numbers from 1 to {MOST_BLOCK:,}")
    return [(sizes[0], sizes[1])]


def blocks_of_rows(groups: Iterable[int]) -> list[Block]:
    """Groups of so many columns of a row, as blocks."""
    return [(1, size) for size in groups if size > 0]


def spread(
    parts: Parts, role: str, blocks: Iterable[Block] = (), dtypes: Dtypes = (*FLOATS, E8M0)
) -> tuple[Floats, int]:
    """Scales (out, groups), and how many columns a group has. The last block of a row or column may be cut short.

    Raises CheckpointError where there are none, or not as many as one of the blocks makes.
    """
    rows, columns = parts.shape
    one, per_row = ((), (1,), (1, 1)), ((rows,), (rows, 1))
    grids = {(-(-rows // high), -(-columns // wide)): (high, wide) for high, wide in blocks}
    stored = parts.array(role, dtypes, *one, *per_row, *grids)
    scales = decode(stored)
    if stored.shape in one:
        return np.broadcast_to(scales.reshape(1, 1), (rows, 1)), columns
    if stored.shape in per_row:
        return scales.reshape(rows, 1), columns
    high, wide = grids[scales.shape]
    return np.repeat(scales, high, axis=0)[:rows], wide


def group_size(parts: Parts, role: str, possible: Iterable[int], groups: int) -> int:
    """The columns of a group where a row has so many groups; of the possible sizes, -1 is a whole row.

    Raises CheckpointError where none of them makes as many.
    """
    columns = parts.shape[1]
    sizes = {columns if size == -1 else size for size in possible}
    return parts.fitting(role, {size: -(-columns // size) for size in sizes}, groups, "group size")

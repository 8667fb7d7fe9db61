"""The stored tensors that stand for one matrix, by their roles. Each is checked before it is used."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import BFLOAT16, CODES, DTYPES, Array
from tokenglass.model.checkpoint.formats.coded import Floats, Indices
from tokenglass.model.checkpoint.formats.numbers import decode
from tokenglass.model.config.fields import shown_name
from tokenglass.model.errors import CheckpointError

Dtypes = Collection[np.dtype[Any]]
FLOATS: Dtypes = (DTYPES["float32"], BFLOAT16, DTYPES["float16"])
WORDS: Dtypes = (np.dtype(np.int32), np.dtype(np.uint32))
INTEGERS: Dtypes = (np.dtype(np.int32), np.dtype(np.int64))


class Parts:
    """Arrays by role, such as weight and weight_scale, for a matrix of this name and shape (out, in).

    Every answer raises CheckpointError where the array is missing, of another dtype, or of none of the given shapes.
    """

    def __init__(self, name: str, shape: tuple[int, int], arrays: Mapping[str, Array], experts: int = 1):
        """`experts` whose matrices lie one below the other."""
        self.name = name
        self.experts = experts
        self.shape = shape
        self.arrays = arrays

    def __contains__(self, role: str) -> bool:
        return role in self.arrays

    def array(self, role: str, dtypes: Dtypes, *shapes: tuple[int, ...]) -> Array:
        """An array of one of these dtypes and shapes."""
        if role not in self.arrays:
            raise self.wrong(f"{role} is missing")
        array = self.arrays[role]
        if array.dtype not in dtypes:
            raise self.wrong(
                f"{role} is {CODES[array.dtype]}, expected {' or '.join(CODES[dtype] for dtype in dtypes)}"
            )
        if array.shape not in shapes:
            raise self.wrong(f"{role} is {list(array.shape)}, expected {' or '.join(str(list(s)) for s in shapes)}")
        return array

    def floats(self, role: str, *shapes: tuple[int, ...], dtypes: Dtypes = FLOATS) -> Floats:
        """The same as float32."""
        return decode(self.array(role, dtypes, *shapes))

    def rows(self, role: str) -> int:
        """The first of a matrix's two sizes."""
        return self._sizes(role)[0]

    def columns(self, role: str) -> int:
        """The second of them."""
        return self._sizes(role)[1]

    def _sizes(self, role: str) -> tuple[int, int]:
        shape = self.arrays[role].shape if role in self.arrays else None
        if shape is None or len(shape) != 2 or 0 in shape:
            raise self.wrong(f"{role} is {'missing' if shape is None else list(shape)}, expected a matrix")
        return shape

    def fitting(self, role: str, sizes: Mapping[int, int], size: int, what: str) -> int:
        """The one of some possibilities, such as bits of a code, that makes the size that an array has."""
        one = next((one for one, makes in sizes.items() if makes == size), None)
        if one is None:
            shape = list(self.arrays[role].shape)
            raise self.wrong(f"{role} is {shape}, which no {what} that config.json names makes")
        return one

    def group_of(self, role: str, group: int, groups: int) -> Indices | None:
        """The group of each column; None where they lie side by side."""
        if role not in self.arrays:
            return None
        columns = self.shape[1]
        indices: NDArray[np.int64] = self.array(role, INTEGERS, (columns,)).astype(np.int64)
        if (indices == -1).all() or (indices == np.arange(columns) // group).all():  # -1: not used
            return None
        if indices.min() < 0 or indices.max() >= groups:
            raise self.wrong(f"{role} names group {indices.min() if indices.min() < 0 else indices.max()} of {groups}")
        return indices

    def wrong(self, what: str) -> CheckpointError:
        return CheckpointError(f"{shown_name(self.name)}: the weights do not fit config.json; {what}")

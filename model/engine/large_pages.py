"""Memory on large pages: fewer of the processor's page tables to walk while it streams by."""

from __future__ import annotations

import math
import mmap
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE_PAGE = 2**21  # bytes
LEAST_LARGE = 8 * LARGE_PAGE  # bytes of an array; the system may take milliseconds to find and clear one page
ALIGNMENT = 64  # bytes: a cache line


def large_block(nbytes: int) -> NDArray[np.uint8] | None:
    """Zeros, uint8 (nbytes,), on large pages; None where the system has none."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        memory = mmap.mmap(-1, nbytes + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them, or one that promises no more memory than there is
        return None
    block = np.frombuffer(memory, np.uint8)
    start = -block.ctypes.data % LARGE_PAGE
    return block[start : start + nbytes]


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros of this shape, on large pages where that is worth it."""
    nbytes = math.prod(shape) * dtype.itemsize
    block = large_block(nbytes) if nbytes >= LEAST_LARGE else None
    return np.zeros(shape, dtype) if block is None else block.view(dtype).reshape(shape)


class Arena:
    """One block of `nbytes` that arrays are laid into, one behind the other; it is taken with the first of them."""

    def __init__(self, nbytes: int):
        self._nbytes = nbytes
        self._used = 0

    @cached_property
    def _block(self) -> NDArray[np.uint8] | None:
        return large_block(self._nbytes) if self._nbytes >= LARGE_PAGE else None

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Room for an array; in memory of its own where the block is full or there is none."""
        nbytes = math.prod(shape) * dtype.itemsize
        if self._block is None or self._used + nbytes > len(self._block):
            return np.empty(shape, dtype)
        place = self._block[self._used : self._used + nbytes].view(dtype).reshape(shape)
        self._used += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return place

    def copy(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, laid here."""
        place = self.empty(array.shape, array.dtype)
        place[...] = array
        return place

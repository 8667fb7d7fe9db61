"""Memory on large pages: fewer of the processor's page tables to walk while it streams by."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

LARGE_PAGE = 2**21  # bytes


def large_block(nbytes: int) -> Tensor | None:
    """Zeros, uint8 (nbytes,), on large pages; None where the system has none."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    memory = mmap.mmap(-1, nbytes + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them
        return None
    block = torch.frombuffer(memory, dtype=torch.uint8)
    start = -block.data_ptr() % LARGE_PAGE
    return block[start : start + nbytes]


def zeros(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros (count,), on large pages where that is worth it."""
    nbytes = count * dtype.itemsize
    block = large_block(nbytes) if device.type == "cpu" and nbytes >= LARGE_PAGE else None
    return torch.zeros(count, dtype=dtype, device=device) if block is None else block.view(dtype)

"""Weights as numpy arrays, mapped from safetensors files; bfloat16 as numbers of 16 bits under a dtype of their own."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.headers import TensorInfo
from tokenglass.model.errors import CheckpointError, first_line
from tokenglass.model.files import open_regular

Array = NDArray[Any]
Empty = Callable[[tuple[int, ...], np.dtype[Any]], Array]  # makes room for an array

BFLOAT16 = np.dtype([("bfloat16", np.uint16)])  # numpy has no bfloat16: its bits, tagged by the name of the one field
E4M3, E5M2, E8M0 = (np.dtype([(name, np.uint8)]) for name in ("e4m3", "e5m2", "e8m0"))  # floats of 8 bits likewise
DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": BFLOAT16,
    "float16": np.dtype(np.float16),
}
STORED: dict[str, np.dtype[Any]] = {  # by safetensors' names
    "F32": DTYPES["float32"],
    "BF16": BFLOAT16,
    "F16": DTYPES["float16"],
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "I64": np.dtype(np.int64),
    "F8_E4M3": E4M3,
    "F8_E5M2": E5M2,
    "F8_E8M0": E8M0,
}
CODES = {dtype: code for code, dtype in STORED.items()}


def dtype_name(dtype: np.dtype[Any]) -> str:
    return "bfloat16" if dtype == BFLOAT16 else dtype.name


def to_float32(array: Array) -> NDArray[np.float32]:
    """The same numbers; the array itself where it is float32."""
    if array.dtype == BFLOAT16:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


def to_bfloat16(array: Array) -> Array:
    """The nearest bfloat16, ties to even."""
    if array.dtype == BFLOAT16:
        return array
    bits = to_float32(array).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    rounded[np.isnan(bits.view(np.float32))] = 0x7FC0
    return rounded.view(BFLOAT16)


def cast(array: Array, name: str) -> Array:
    """The array in float32, bfloat16 or float16; itself where it is that already."""
    if DTYPES[name] == array.dtype:
        return array
    if name == "bfloat16":
        return to_bfloat16(array)
    with np.errstate(over="ignore"):
        return to_float32(array).astype(DTYPES[name], copy=False)


def read_arrays(
    tensors: Collection[TensorInfo], names: Collection[str], by_row: Collection[str] = ()
) -> Iterator[tuple[str, Array]]:
    """The tensors of these names, in the order of the files, mapped: nothing is read before it is used.

    What is written to them stays in this process. Of those in `by_row` single rows are used, so that the system reads
    little around them. Raises CheckpointError.
    """
    by_file: dict[Path, list[TensorInfo]] = {}
    for info in tensors:
        if info.name in names:
            by_file.setdefault(info.file, []).append(info)
    for file, infos in by_file.items():
        try:
            with open_regular(file) as opened:
                memory = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file}: cannot be read ({first_line(error)})") from None
        mapped = np.frombuffer(memory, np.uint8)
        data = 8 + int.from_bytes(mapped[:8].tobytes(), "little")
        for info in infos:
            if data + info.end > len(mapped):
                raise CheckpointError(f"{file}: damaged or incomplete (it became shorter while it was read)")
            if info.name not in by_row:
                ask_for_large_pages(memory, data + info.begin, data + info.end)
            raw = mapped[data + info.begin : data + info.end]
            if raw.ctypes.data % STORED[info.dtype].itemsize:
                raw = raw.copy()  # at an odd place
            yield info.name, raw.view(STORED[info.dtype]).reshape(info.shape)


def ask_for_large_pages(memory: mmap.mmap, begin: int, end: int) -> None:
    """Has the system read bytes of a file into large pages, where it can: fewer page tables to walk for the processor
    while they stream by. Those that the system holds already stay as they are."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        start = begin // mmap.PAGESIZE * mmap.PAGESIZE
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE, start, end - start)

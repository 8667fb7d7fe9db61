"""Writes safetensors files (github.com/huggingface/safetensors), an array at a time."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path

import numpy as np

from tokenglass.model.checkpoint.arrays import CODES, Array
from tokenglass.model.progress import Progress

ALIGNMENT = 64  # bytes: where the numbers begin


def write_safetensors(
    path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]
) -> Generator[Progress, None, None]:
    """A file of these arrays; those of wider numbers come first, so that each lies at its alignment."""
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    entries = ((name, CODES[array.dtype], array.shape, array.nbytes) for name, array in ordered)
    done, total = 0, sum(array.nbytes for array in arrays.values())
    with path.open("wb") as out:
        out.write(header_of(entries, metadata))
        for _, array in ordered:
            out.write(np.ascontiguousarray(array).view(np.uint8).data)
            done += array.nbytes
            yield Progress("writing", done, total)


def header_of(entries: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str]) -> bytes:
    """What stands before tensors (name, safetensors' dtype, shape, bytes) that lie one behind the other."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, dtype, shape, nbytes in entries:
        start, end = end, end + nbytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-(len(head) + 8) % ALIGNMENT)
    return len(head).to_bytes(8, "little") + head

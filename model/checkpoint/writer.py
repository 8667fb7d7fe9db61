"""Writes safetensors files (github.com/huggingface/safetensors), an array at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tokenglass.model.checkpoint.arrays import CODES, Array
from tokenglass.model.checkpoint.partial import Progress

ALIGNMENT = 64  # bytes: where the numbers begin


def write_safetensors(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> Iterator[Progress]:
    """A file of these arrays; those of wider numbers come first, so that each lies at its alignment."""
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        header[name] = {"dtype": CODES[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-(len(head) + 8) % ALIGNMENT)
    done = 0
    with path.open("wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for _, array in ordered:
            out.write(np.ascontiguousarray(array).view(np.uint8).data)
            done += array.nbytes
            yield Progress("writing", done, end)

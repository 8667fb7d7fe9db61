"""What the header of a safetensors file says. No torch here: the library's own reader imports it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import CheckpointError

MAX_HEADER = 100_000_000  # bytes, the library's own bound
DTYPE_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file: its dtype by safetensors' own name, such as BF16, and its shape."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * DTYPE_BYTES.get(self.dtype, 1)


def read_header(file: Path) -> list[TensorInfo]:
    """The tensors of a file.

    Raises CheckpointError where the file is cut short, or a tensor does not lie in it as the header says.
    """
    header, data_bytes = parse(file)
    header.pop("__metadata__", None)
    infos = [read_entry(file, name, entry, data_bytes) for name, entry in header.items()]
    if sum(info.nbytes for info in infos if info.dtype in DTYPE_BYTES) > data_bytes:
        raise CheckpointError(f"{file}: damaged or incomplete (its tensors need more than its {data_bytes:,} bytes)")
    return infos


def read_metadata(file: Path) -> dict[str, str]:
    """What a file says of itself; empty where that is nothing, or not text. Raises CheckpointError."""
    metadata = parse(file)[0].get("__metadata__")
    items = metadata.items() if isinstance(metadata, dict) else ()
    return {name: value for name, value in items if isinstance(value, str)}


def parse(file: Path) -> tuple[dict[str, Any], int]:
    """The header and the bytes behind it: 8 bytes of header length, a JSON object, the data
    (github.com/huggingface/safetensors). Raises CheckpointError."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            data_bytes = file.stat().st_size - 8 - length
            if length > MAX_HEADER or data_bytes < 0:
                raise CheckpointError(f"{file}: damaged or incomplete (no room for its header of {length:,} bytes)")
            header = json.loads(opened.read(length))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file; the index names it, so the download is not complete") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file}: damaged or incomplete (its header is not JSON)") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: damaged or incomplete (its header is not an object)")
    return header, data_bytes


def read_entry(file: Path, name: str, entry: Any, data_bytes: int) -> TensorInfo:
    """One tensor of the header, checked against the data there is."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        info = TensorInfo(name, file, str(dtype), shape)
        sizes_are_sane = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        fits = sizes_are_sane and end <= data_bytes and (dtype not in DTYPE_BYTES or end - begin == info.nbytes)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise CheckpointError(f"{file}: damaged or incomplete ({name} does not lie in it as its header says)")
    return info

"""What the header of a safetensors file says. No torch here: the library's own reader imports it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenglass.model.config.fields import quote, shown_name
from tokenglass.model.errors import CheckpointError
from tokenglass.model.files import open_regular, parse_json

MAX_HEADER = 100_000_000  # bytes, the library's own bound
MAX_DIMENSIONS = 8
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # that can be computed in
DTYPE_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("BF16", "F16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file: its dtype by safetensors' own name, such as BF16, its shape, and its place in the data."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a file, and what it says of itself."""

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]


def read_header(file: Path, limit: int = MAX_HEADER) -> Header:
    """The header of a file, which has `limit` bytes at most.

    Raises CheckpointError where the file is cut short, or its tensors do not fill it one behind the other, as the
    library demands (github.com/huggingface/safetensors, "Format").
    """
    raw, data_bytes = parse(file, limit)
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise damage_error(file, "its metadata is not text")
    tensors = tuple(read_entry(file, name, entry) for name, entry in raw.items())
    filled = 0
    for info in sorted(tensors, key=lambda info: (info.begin, info.end)):
        if info.begin != filled:
            raise damage_error(file, f"{shown_name(info.name)} does not begin where the tensor before it ends")
        filled = info.end
    if filled != data_bytes:
        raise damage_error(file, f"its tensors take {filled:,} bytes, and it has {data_bytes:,}")
    return Header(tensors, metadata)


def parse(file: Path, limit: int) -> tuple[dict[str, Any], int]:
    """The header and the number of bytes behind it: 8 bytes of header length, a JSON object, the data.

    Raises CheckpointError.
    """
    try:
        with open_regular(file) as opened:
            length = int.from_bytes(opened.read(8), "little")
            data_bytes = file.stat().st_size - 8 - length
            if data_bytes < 0:
                raise damage_error(file, f"no room for its header of {length:,} bytes")
            if length > min(limit, MAX_HEADER):
                raise CheckpointError(f"{file}: a header of {length:,} bytes, for more tensors than the model can have")
            content = opened.read(length)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file; the index names it, so the download is not complete") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None
    return parse_json(content, f"{file}: damaged or incomplete; its header", CheckpointError), data_bytes


def read_entry(file: Path, name: str, entry: Any) -> TensorInfo:
    """One tensor of the header."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), sizes(fields.get("shape")), sizes(fields.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise damage_error(file, f"the entry of {shown_name(name)} needs a dtype, a shape and two offsets")
    if not (writable(name) and writable(dtype)):
        raise damage_error(file, f"{quote(name)} of dtype {quote(dtype)} is not Unicode text")
    info = TensorInfo(name, file, dtype, shape, *offsets)
    if info.nbytes < 0 or (dtype in DTYPE_BYTES and info.nbytes != info.size * DTYPE_BYTES[dtype]):
        raise damage_error(file, f"{shown_name(name)} does not lie in it as its header says")
    return info


def sizes(value: Any) -> tuple[int, ...] | None:
    """A short list of numbers that 63 bits hold; None for anything else."""
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS:
        return None
    return tuple(value) if all(type(size) is int and 0 <= size < 2**63 for size in value) else None


def writable(name: str) -> bool:
    """Whether a text is free of lone surrogates, which JSON can spell and nothing else can hold."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def damage_error(file: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{file}: damaged or incomplete ({what})")

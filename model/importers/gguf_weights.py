"""GGUF tensors dequantised into one safetensors file, a few rows at a time."""

from __future__ import annotations

import math
import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenglass.model.checkpoint.arrays import DTYPES, Array, cast
from tokenglass.model.checkpoint.writer import header_of
from tokenglass.model.config.fields import first_few, shown_name
from tokenglass.model.errors import GGUFError, first_line
from tokenglass.model.importers.gguf_architectures import ROPE_FACTORS, Architecture
from tokenglass.model.importers.gguf_file import GGUFFile, GGUFTensor
from tokenglass.model.progress import Progress

CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
CHUNK = 2**22  # values dequantised at once


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor to be written: where it comes from and what it becomes."""

    name: str
    source: GGUFTensor
    nbytes_stored: int
    dtype: str
    heads: int | None  # where rows of a head are interleaved: the number of heads

    @property
    def size(self) -> int:
        return math.prod(self.source.shape)

    @property
    def nbytes(self) -> int:
        return self.size * DTYPES[self.dtype].itemsize


def library() -> Any:
    """The gguf library. Raises GGUFError where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise GGUFError('GGUF files need the extra "gguf"; pip install "tokenglass[gguf]"') from None
    return gguf


def plan(file: GGUFFile, kind: Architecture, heads: dict[str, int], dtype: str) -> tuple[Weight, ...]:
    """What to write for every tensor of the file, each checked to lie in it. Raises GGUFError.

    dtype auto keeps float16 and bfloat16 as they are and makes float32 of the rest, so that nothing is rounded.
    `heads` counts the heads of each interleaved part.
    """
    weights, unknown = [], []
    for tensor in file.tensors:
        name = kind.name(tensor.name)
        if name is not None:
            part = kind.part(tensor.name)
            stored = {"F16": "float16", "BF16": "bfloat16"}.get(type_name(tensor), "float32")
            weights.append(
                Weight(
                    name,
                    tensor,
                    nbytes_stored(tensor),
                    stored if dtype == "auto" else dtype,
                    heads[part] if part in kind.interleaved else None,
                )
            )
        elif tensor.name != ROPE_FACTORS:
            unknown.append(shown_name(tensor.name))
    if unknown:
        raise GGUFError(f"tensors that {kind.model_type} does not have: {first_few(unknown)}")
    size = file.path.stat().st_size
    ends = max((weight.source.offset + weight.nbytes_stored for weight in weights), default=0)
    if ends > size or sum(weight.nbytes_stored for weight in weights) > size:
        raise GGUFError(f"damaged or incomplete (its tensors end at byte {ends:,}, the file at {size:,})")
    return tuple(weights)


def main_dtype(weights: tuple[Weight, ...]) -> str:
    """The dtype that most values are stored in."""
    totals = {dtype: sum(w.size for w in weights if w.dtype == dtype) for dtype in DTYPES}
    return max(totals, key=lambda dtype: totals[dtype])


def write(path: Path, file: GGUFFile, weights: tuple[Weight, ...]) -> Generator[Progress, None, None]:
    """Write the safetensors file; memory is bounded by one chunk. Raises GGUFError."""
    entries = ((weight.name, CODES[weight.dtype], weight.source.shape, weight.nbytes) for weight in weights)
    total = sum(weight.nbytes for weight in weights)
    free = shutil.disk_usage(path.parent).free
    if total > free:
        raise GGUFError(f"the weights take {total:,} bytes and the disk of {path.parent} has {free:,}; make room first")
    head = header_of(entries, {"format": "pt"})
    with path.open("wb") as out:
        out.write(head)
        for weight in weights:
            for values in read_values(file, weight.source, weight.nbytes_stored, weight.heads):
                out.write(cast(values, weight.dtype).tobytes())
                yield Progress("importing", out.tell() - len(head), total)


def read_rope_factors(file: GGUFFile, count: int) -> list[float] | None:
    """The `count` divisors of the rotary frequencies; None where the file holds none. Raises GGUFError."""
    tensor = next((tensor for tensor in file.tensors if tensor.name == ROPE_FACTORS), None)
    if tensor is None:
        return None
    if tensor.shape != (count,) or type_name(tensor) != "F32":
        raise GGUFError(f"{ROPE_FACTORS} is {list(tensor.shape)} of {type_name(tensor)}; expected {count} of F32")
    nbytes = nbytes_stored(tensor)
    if tensor.offset + nbytes > file.path.stat().st_size:
        raise GGUFError(f"damaged or incomplete ({ROPE_FACTORS} ends after the file)")
    return [float(value) for values in read_values(file, tensor, nbytes) for value in values.flatten()]


def read_values(file: GGUFFile, tensor: GGUFTensor, nbytes: int, heads: int | None = None) -> Iterator[Array]:
    """A tensor's values in float32, a few whole rows at a time, in Hugging Face's order. Raises GGUFError.

    A bias is one row; where its values are interleaved, they are put in order as the rows of a matrix are.
    """
    import numpy as np  # comes with the extra

    rows, length = math.prod(tensor.shape[:-1]), tensor.shape[-1]
    stored = np.memmap(file.path, np.uint8, "r", tensor.offset, (rows, nbytes // rows))
    order = np.arange(tensor.shape[0])
    if heads is not None:  # (head, half, 2) in the file, (head, 2, half) in the checkpoint
        if len(order) % (2 * heads):
            raise GGUFError(f"{tensor.name} has {len(order)} rows, which {heads} heads cannot share")
        order = order.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
    if len(tensor.shape) == 1:
        yield dequantize(tensor, np.array(stored))[0][order]
        return
    step = max(1, CHUNK // length)
    for start in range(0, rows, step):
        yield dequantize(tensor, stored[order[start : start + step]])


def dequantize(tensor: GGUFTensor, stored: Any) -> Array:
    """Stored rows as float32."""
    import numpy as np

    try:
        with np.errstate(all="ignore"):
            values = library().dequantize(stored, library().GGMLQuantizationType(tensor.type))
    except (NotImplementedError, ValueError, ArithmeticError) as error:
        raise GGUFError(f"{tensor.name}: cannot be dequantised ({first_line(error)})") from None
    return np.ascontiguousarray(values, dtype=np.float32)


def type_name(tensor: GGUFTensor) -> str:
    """ggml's name for a tensor's type, such as Q4_1. Raises GGUFError."""
    try:
        return str(library().GGMLQuantizationType(tensor.type).name)
    except ValueError:
        raise GGUFError(
            f"{shown_name(tensor.name)} is of type {tensor.type}, which the gguf library does not know"
        ) from None


def nbytes_stored(tensor: GGUFTensor) -> int:
    """Bytes that a tensor takes in the file. Raises GGUFError."""
    block, nbytes = library().GGML_QUANT_SIZES[library().GGMLQuantizationType[type_name(tensor)]]
    if tensor.shape[-1] % block:
        raise GGUFError(f"{shown_name(tensor.name)} has rows of {tensor.shape[-1]}, not a multiple of {block}")
    return math.prod(tensor.shape) // block * nbytes

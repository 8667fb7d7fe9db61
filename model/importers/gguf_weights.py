"""GGUF tensors dequantised into one safetensors file, a few rows at a time."""

from __future__ import annotations

import math
import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenglass.model.checkpoint.arrays import DTYPES, Array, cast
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.layouts import Stored, stored_tensors
from tokenglass.model.checkpoint.writer import header_of
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.fields import first_few, shown_name
from tokenglass.model.errors import GGUFError, first_line
from tokenglass.model.importers.gguf_architectures import TABLES, Architecture
from tokenglass.model.importers.gguf_file import GGUFFile, GGUFTensor
from tokenglass.model.progress import Progress

CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
CHUNK = 2**22  # values dequantised at once


@dataclass(frozen=True, slots=True)
class RowOrder:
    """The order of a checkpoint's rows among those of the file: rows numbered by `shape`, two of its axes swapped."""

    shape: tuple[int, int, int]
    axes: tuple[int, int]

    def rows(self, count: int) -> Array:
        """Indices (count,) of the file's rows."""
        return np.arange(count).reshape(self.shape).swapaxes(*self.axes).reshape(-1)


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor to be written: where it comes from and what it becomes."""

    name: str
    source: GGUFTensor
    nbytes_stored: int
    dtype: str
    order: RowOrder | None = None  # None: as in the file
    transposed: bool = False
    offset: float = 0.0  # taken from every value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape[::-1] if self.transposed else self.source.shape

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


def plan(file: GGUFFile, kind: Architecture, config: ModelConfig, dtype: str) -> tuple[Weight, ...]:
    """What to write for every tensor of the file, each checked to lie in it. Raises GGUFError.

    dtype auto keeps float16 and bfloat16 as they are and makes float32 of the rest, so that nothing is rounded.
    """
    if config.num_layers > len(file.tensors):  # an absurd number must not even be built without memory
        raise GGUFError(f"{config.num_layers} layers, but only {len(file.tensors)} tensors")
    targets = {tuple(stored.parts): stored for stored in stored_tensors(config, Blueprint.of(config).shapes)}
    weights, unknown = [], []
    for tensor in file.tensors:
        if tensor.name in TABLES:
            continue
        target = targets.get(kind.weights(tensor.name) or ())
        if target is None:
            unknown.append(shown_name(tensor.name))
        else:
            weights.append(weight_of(tensor, target, kind, config, dtype))
    if unknown:
        raise GGUFError(f"tensors that the model does not have: {first_few(unknown)}")
    for path in {weight.source.path for weight in weights}:
        own, size = [weight for weight in weights if weight.source.path == path], path.stat().st_size
        ends = max(weight.source.offset + weight.nbytes_stored for weight in own)
        if ends > size or sum(weight.nbytes_stored for weight in own) > size:
            raise GGUFError(f"damaged or incomplete (its tensors end at byte {ends:,}, the file at {size:,})")
    return tuple(weights)


def weight_of(tensor: GGUFTensor, target: Stored, kind: Architecture, config: ModelConfig, dtype: str) -> Weight:
    """What a tensor of the file becomes."""
    stored = {"F16": "float16", "BF16": "bfloat16"}.get(type_name(tensor), "float32")
    order = None
    if pairs := kind.pairs(tensor.name, config):
        order = RowOrder((pairs, -1, 2), (1, 2))
    elif target.heads:  # queries of all heads first in the file, and head by head in the checkpoint
        order = RowOrder((len(target.parts), target.heads, -1), (0, 1))
    is_norm = tensor.name.endswith("_norm.weight")
    return Weight(
        target.name,
        tensor,
        nbytes_stored(tensor),
        stored if dtype == "auto" else dtype,
        order,
        target.transposed,
        kind.norm_offset if is_norm else 0.0,
    )


def main_dtype(weights: tuple[Weight, ...]) -> str:
    """The dtype that most values are stored in."""
    totals = {dtype: sum(w.size for w in weights if w.dtype == dtype) for dtype in DTYPES}
    return max(totals, key=lambda dtype: totals[dtype])


def write(path: Path, weights: tuple[Weight, ...]) -> Generator[Progress, None, None]:
    """Write the safetensors file; memory is bounded by one chunk. Raises GGUFError."""
    entries = ((weight.name, CODES[weight.dtype], weight.shape, weight.nbytes) for weight in weights)
    total = sum(weight.nbytes for weight in weights)
    free = shutil.disk_usage(path.parent).free
    if total > free:
        raise GGUFError(f"the weights take {total:,} bytes and the disk of {path.parent} has {free:,}; make room first")
    head = header_of(entries, {"format": "pt"})
    with path.open("wb") as out:
        out.write(head)
        for weight in weights:
            for values in read_weight(weight):
                out.write(cast(values, weight.dtype).tobytes())
                yield Progress("importing", out.tell() - len(head), total)


def read_table(file: GGUFFile, name: str, count: int) -> list[float] | None:
    """The `count` numbers of a table; None where the file holds none of that name. Raises GGUFError."""
    tensor = next((tensor for tensor in file.tensors if tensor.name == name), None)
    if tensor is None:
        return None
    if tensor.shape != (count,) or type_name(tensor) != "F32":
        raise GGUFError(f"{name} is {list(tensor.shape)} of {type_name(tensor)}; expected {count} of F32")
    nbytes = nbytes_stored(tensor)
    if tensor.offset + nbytes > tensor.path.stat().st_size:
        raise GGUFError(f"damaged or incomplete ({name} ends after the file)")
    return [float(value) for values in read_values(tensor, nbytes) for value in values.flatten()]


def read_weight(weight: Weight) -> Iterator[Array]:
    """A weight's values in float32, as the checkpoint has them: a transposed one whole, others a few rows at a time."""
    chunks = read_values(weight.source, weight.nbytes_stored, weight.order)
    if weight.transposed:
        chunks = iter([np.ascontiguousarray(np.concatenate(list(chunks)).T)])
    for chunk in chunks:
        yield chunk - chunk.dtype.type(weight.offset) if weight.offset else chunk


def read_values(tensor: GGUFTensor, nbytes: int, order: RowOrder | None = None) -> Iterator[Array]:
    """A tensor's values in float32, a few whole rows at a time. Raises GGUFError.

    A bias is one row; where rows have another order, its values have it too.
    """
    rows, length = math.prod(tensor.shape[:-1]), tensor.shape[-1]
    stored = np.memmap(tensor.path, np.uint8, "r", tensor.offset, (rows, nbytes // rows))
    if len(tensor.shape) == 1:
        values = dequantize(tensor, np.array(stored))[0]
        yield values if order is None else values[order.rows(length)]
        return
    step = max(1, CHUNK // length)
    place = None if order is None else order.rows(rows)
    for start in range(0, rows, step):
        end = start + step
        yield dequantize(tensor, stored[start:end] if place is None else stored[place[start:end]])


def dequantize(tensor: GGUFTensor, stored: Any) -> Array:
    """Stored rows as float32."""
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

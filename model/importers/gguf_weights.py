"""The weights of a GGUF file by the blueprint's names, and their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.layouts import Indices
from tokenglass.model.checkpoint.parts import Shape
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.fields import first_few, quote, shown_name
from tokenglass.model.errors import GGUFError, first_line
from tokenglass.model.importers.gguf_architectures import TABLES, Architecture, layer_of, part_of, unread
from tokenglass.model.importers.gguf_file import GUESSING, GGUFFile, GGUFTensor
from tokenglass.model.importers.gguf_orders import same

CHUNK = 2**22  # values dequantised at once


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of the blueprint: rows of a tensor in the file, or, where it is no matrix, numbers of one."""

    name: str
    shape: Shape
    tensor: GGUFTensor
    type: str  # ggml's name for the tensor's, such as Q4_1
    rows: slice | Indices  # of the tensor, or, where that is no matrix, numbers of it, in our order
    columns: Indices | None = None  # of the tensor in our order; None: as in the file
    undo: Callable[[Array], Array] = same  # what its numbers are, of those in the file; of what is no matrix

    @property
    def blocks(self) -> Array:
        """A matrix's own rows (out, blocks, bytes of a block), mapped; copied where they have another order. Columns
        are as in the file."""
        block, nbytes = block_size(self.type)
        length, rows = self.tensor.shape[-1], math.prod(self.tensor.shape[:-1])
        stored = np.memmap(self.tensor.path, np.uint8, "r", self.tensor.offset, (rows, length // block, nbytes))
        return stored[self.rows]

    def chunks(self) -> Iterator[Array]:
        """The values in float32, a few whole rows at a time. Raises GGUFError."""
        if math.prod(self.shape[1:]) == 1:
            numbers = np.concatenate([values.reshape(-1) for values in read_values(self.tensor)])
            yield self.undo(numbers[self.rows])
            return
        for values in read_values(self.tensor, self.rows):
            yield values if self.columns is None else values[:, self.columns]

    def values(self) -> Array:
        """The same at once."""
        return np.concatenate([*self.chunks()])


@dataclass(frozen=True, slots=True)
class Number:
    """One number that stands in the metadata, or in no file."""

    name: str
    value: float
    shape: Shape = (1,)

    type = "F32"

    def chunks(self) -> Iterator[Array]:
        yield self.values()

    def values(self) -> Array:
        return np.full(self.shape, self.value, np.float32)


def library() -> Any:
    """The gguf library. Raises GGUFError where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise GGUFError('GGUF files need the extra "gguf"; pip install "tokenglass[gguf]"') from None
    return gguf


def weights_of(file: GGUFFile, kind: Architecture, config: ModelConfig) -> dict[str, Weight | Number]:
    """Every weight of the model in the blueprint's order, each in a tensor of the right shape. Raises GGUFError.

    Sizes are checked before anything is made of them: an absurd number must not take time or memory.
    """
    check_sizes(file)
    if config.num_layers > len(file.tensors):
        raise GGUFError(f"{config.num_layers} layers, but only {len(file.tensors)} tensors")
    count = 1 if config.mixture is None else config.mixture.count
    if count > max((tensor.shape[0] for tensor in file.tensors), default=0):
        raise GGUFError(f"{count:,} experts, but no tensor has as many rows")
    shapes = Blueprint.of(config).shapes
    weights: dict[str, Weight | Number] = {number.name: number for number in numbers_of(file, kind, config)}
    unknown, wrong = [], []
    guessing, unused = guessing_layers(file, config), TABLES | unread(config)
    for tensor in file.tensors:
        if tensor.name in unused or layer_of(tensor.name) in guessing:
            continue
        groups = kind.groups(tensor.name, shapes)
        if not groups:
            unknown.append(shown_name(tensor.name))
            continue
        names = [name for group in groups for name in group]
        rows, *length = sum(shapes[name][0] for name in names), *shapes[names[0]][1:]
        stack = (len(groups), rows // len(groups)) if kind.is_stacked(tensor.name) else (rows,)
        expected = (*stack, *length)
        if tensor.shape not in (expected, tuple(size for size in expected if size > 1)):  # the converter drops ones
            wrong.append(f"{tensor.name} is {list(tensor.shape)}, expected {list(expected)}")
            continue
        part, columns = part_of(tensor.name), None
        order = kind.rows[part](config, rows) if part in kind.rows else None
        if part in kind.columns:
            columns = kind.columns[part](config, tensor.shape[-1])
        first = 0
        for name in names:
            own = slice(first, first + shapes[name][0])
            first = own.stop
            indices = own if order is None else order[own]
            undo = kind.undo(tensor.name)
            weights[name] = Weight(name, shapes[name], tensor, type_name(tensor), indices, columns, undo)
    if unknown:
        raise GGUFError(f"tensors that the model does not have: {first_few(unknown)}")
    missing = [name for name in shapes if name not in weights]
    for what, examples in (("wrong shape", wrong), ("missing", missing)):
        if examples:
            raise GGUFError(f"the tensors do not fit config.json; {what}: {first_few(examples)}")
    return {name: weights[name] for name in shapes}


def guessing_layers(file: GGUFFile, config: ModelConfig) -> range:
    """Those behind the last of the model, which guess further tokens."""
    count = file.metadata.get(f"{file.metadata.get('general.architecture')}.{GUESSING}", 0)
    return range(config.num_layers, config.num_layers + (count if isinstance(count, int) else 0))


def numbers_of(file: GGUFFile, kind: Architecture, config: ModelConfig) -> Iterator[Number]:
    """The weights of every layer that are metadata. Raises GGUFError."""
    for key, part in kind.numbers.items():
        values = file.metadata.get(key)
        if not (isinstance(values, tuple) and len(values) == config.num_layers):
            raise GGUFError(f"{key} is {quote(values)}; expected a number for each of {config.num_layers} layers")
        for layer, value in enumerate(values):
            if not isinstance(value, float):
                raise GGUFError(f"{key} holds {quote(value)}; expected numbers")
            yield Number(f"model.layers.{layer}.{part}", value)


def constants_of(config: ModelConfig) -> dict[str, Number]:
    """What a checkpoint of transformers' has beside its weights."""
    return {name: Number(name, value, ()) for name, value in Blueprint.of(config).constants.items()}


def check_sizes(file: GGUFFile) -> None:
    """Raises GGUFError where tensors do not lie in their files."""
    for path in {tensor.path for tensor in file.tensors}:
        own, size = [tensor for tensor in file.tensors if tensor.path == path], path.stat().st_size
        sizes = [nbytes_stored(tensor) for tensor in own]
        ends = max(tensor.offset + nbytes for tensor, nbytes in zip(own, sizes, strict=True))
        if ends > size or sum(sizes) > size:
            raise GGUFError(f"damaged or incomplete (its tensors end at byte {ends:,}, the file at {size:,})")


def read_table(file: GGUFFile, name: str, count: int) -> list[float] | None:
    """The `count` numbers of a table; None where the file holds none of that name. Raises GGUFError."""
    tensor = next((tensor for tensor in file.tensors if tensor.name == name), None)
    if tensor is None:
        return None
    if tensor.shape != (count,) or type_name(tensor) != "F32":
        raise GGUFError(f"{name} is {list(tensor.shape)} of {type_name(tensor)}; expected {count} of F32")
    if tensor.offset + nbytes_stored(tensor) > tensor.path.stat().st_size:
        raise GGUFError(f"damaged or incomplete ({name} ends after the file)")
    return [float(value) for values in read_values(tensor) for value in values.flatten()]


def read_values(tensor: GGUFTensor, rows: slice | Indices = slice(None)) -> Iterator[Array]:
    """Some of a tensor's rows in float32, a few at a time, or all of them. Raises GGUFError."""
    count, length = math.prod(tensor.shape[:-1]), tensor.shape[-1]
    stored = np.memmap(tensor.path, np.uint8, "r", tensor.offset, (count, nbytes_stored(tensor) // count))
    own = range(count)[rows] if isinstance(rows, slice) else rows
    step = max(1, CHUNK // length)
    for start in range(0, len(own), step):
        part = own[start : start + step]
        yield dequantize(tensor, stored[part.start : part.stop] if isinstance(part, range) else stored[part])


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


def block_size(name: str) -> tuple[int, int]:
    """Weights in a block of a type, and its bytes."""
    weights, nbytes = library().GGML_QUANT_SIZES[library().GGMLQuantizationType[name]]
    return weights, nbytes


def nbytes_stored(tensor: GGUFTensor) -> int:
    """Bytes that a tensor takes in the file. Raises GGUFError."""
    block, nbytes = block_size(type_name(tensor))
    if tensor.shape[-1] % block:
        raise GGUFError(f"{shown_name(tensor.name)} has rows of {tensor.shape[-1]}, not a multiple of {block}")
    return math.prod(tensor.shape) // block * nbytes

"""The weights of a GGUF file by the blueprint's names, and their values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.layouts import Indices, order_of_heads
from tokenglass.model.checkpoint.parts import Shape
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.fields import first_few, quote, shown_name
from tokenglass.model.errors import GGUFError, first_line
from tokenglass.model.importers.gguf_architectures import TABLES, Architecture
from tokenglass.model.importers.gguf_file import GGUFFile, GGUFTensor

CHUNK = 2**22  # values dequantised at once


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of the blueprint: rows of a tensor in the file, or, where it is no matrix, numbers of one."""

    name: str
    shape: Shape
    tensor: GGUFTensor
    type: str  # ggml's name for the tensor's, such as Q4_1
    first: int  # of the rows or numbers that are its own
    order: Indices | None  # of them, where ours have another; None: as in the file
    offset: float  # that the converter added to every value

    @property
    def blocks(self) -> Array:
        """A matrix's own rows (out, blocks, bytes of a block), mapped; copied where they have another order."""
        block, nbytes = block_size(self.type)
        length, rows = self.tensor.shape[-1], math.prod(self.tensor.shape[:-1])
        stored = np.memmap(self.tensor.path, np.uint8, "r", self.tensor.offset, (rows, length // block, nbytes))[
            self.first : self.first + self.shape[0]
        ]
        return stored if self.order is None else stored[self.order]

    def chunks(self) -> Iterator[Array]:
        """The values in float32, a few whole rows at a time. Raises GGUFError."""
        if len(self.shape) == 1:
            numbers = np.concatenate([values.reshape(-1) for values in read_values(self.tensor)])
            own = numbers[self.first : self.first + self.shape[0]]
            yield (own if self.order is None else own[self.order]) - np.float32(self.offset)
            return
        yield from read_values(self.tensor, slice(self.first, self.first + self.shape[0]), self.order)

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
    for tensor in file.tensors:
        if tensor.name in TABLES:
            continue
        names = kind.weights(tensor.name, count)
        if names is None or not shapes.keys() >= set(names):
            unknown.append(shown_name(tensor.name))
            continue
        rows, *length = sum(shapes[name][0] for name in names), *shapes[names[0]][1:]
        expected = (count, rows // count, *length) if kind.is_stacked(tensor.name) else (rows, *length)
        if tensor.shape not in (expected, tuple(size for size in expected if size > 1)):  # the converter drops ones
            wrong.append(f"{tensor.name} is {list(tensor.shape)}, expected {list(expected)}")
            continue
        first = 0
        for name in names:
            offset = kind.norm_offset if tensor.name.endswith("_norm.weight") else 0.0
            order = row_order(tensor, shapes[name], kind, config)
            weights[name] = Weight(name, shapes[name], tensor, type_name(tensor), first, order, offset)
            first += shapes[name][0]
    if unknown:
        raise GGUFError(f"tensors that the model does not have: {first_few(unknown)}")
    missing = [name for name in shapes if name not in weights]
    for what, examples in (("wrong shape", wrong), ("missing", missing)):
        if examples:
            raise GGUFError(f"the tensors do not fit config.json; {what}: {first_few(examples)}")
    return {name: weights[name] for name in shapes}


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


def row_order(tensor: GGUFTensor, shape: Shape, kind: Architecture, config: ModelConfig) -> Indices | None:
    """The file's rows of queries or keys in our order, where the numbers that rotate together lie side by side."""
    if not kind.in_pairs(tensor.name):
        return None
    rope = next((layer.rope for layer in config.layers if layer.rope is not None), None)
    return None if rope is None else order_of_heads(shape[0], config.head_dim, rope.dim, "pairs")


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


def read_values(tensor: GGUFTensor, own: slice = slice(None), order: Indices | None = None) -> Iterator[Array]:
    """Some of a tensor's rows in float32, a few at a time, or all of them; in another order where there is one.

    Raises GGUFError.
    """
    rows, length = math.prod(tensor.shape[:-1]), tensor.shape[-1]
    stored = np.memmap(tensor.path, np.uint8, "r", tensor.offset, (rows, nbytes_stored(tensor) // rows))[own]
    step = max(1, CHUNK // length)
    for start in range(0, len(stored), step):
        end = start + step
        yield dequantize(tensor, stored[start:end] if order is None else stored[order[start:end]])


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

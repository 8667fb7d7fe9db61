"""The weights of a GGUF file written as one safetensors file: as numbers, or matrices kept in their own nibbles."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tokenglass.model.checkpoint.arrays import CODES, DTYPES, STORED, Array, cast
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.formats.ggml import READERS, ROUNDED
from tokenglass.model.checkpoint.formats.packing import keepable
from tokenglass.model.checkpoint.layouts import Stored, stored_tensors
from tokenglass.model.checkpoint.parts import Shape
from tokenglass.model.checkpoint.quantised_checkpoint import parts_of
from tokenglass.model.checkpoint.quantised_layout import Quantisation, stored_parts
from tokenglass.model.checkpoint.writer import header_of
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import GGUFError
from tokenglass.model.importers.gguf_weights import Number, Weight
from tokenglass.model.progress import Progress

EXACT = {"F16": "float16", "BF16": "bfloat16", "MXFP4": "bfloat16"}  # dtypes that hold these types, else float32
Entry = tuple[str, str, Shape]  # name, safetensors' dtype, shape


@dataclass(frozen=True)
class Numbers:
    """The weights as a checkpoint of transformers' has them, all dequantised.

    dtype auto keeps float16 and bfloat16 as they are and makes float32 of the rest, so that nothing is rounded. What is
    read in float32 whatever the others are is never rounded.
    """

    config: ModelConfig
    weights: Mapping[str, Weight | Number]
    dtype: str = "auto"

    @property
    def metadata(self) -> dict[str, str]:
        return {"format": "pt"}

    @property
    def main_dtype(self) -> str:
        """That of most values."""
        sizes: Counter[str] = Counter()
        for stored in self.tensors:
            sizes[self.dtype_of(stored)] += math.prod(stored.shape)
        return max(DTYPES, key=lambda dtype: sizes[dtype])

    @cached_property
    def in_float32(self) -> frozenset[str]:
        return Blueprint.of(self.config).in_float32

    @property
    def tensors(self) -> list[Stored]:
        return stored_tensors(self.config, {name: weight.shape for name, weight in self.weights.items()})

    def dtype_of(self, stored: Stored) -> str:
        dtypes = {EXACT.get(self.weights[name].type, "float32") for name in stored.parts}
        exact = dtypes.pop() if len(dtypes) == 1 else "float32"
        return exact if self.dtype == "auto" or not self.in_float32.isdisjoint(stored.parts) else self.dtype

    @property
    def entries(self) -> Iterator[Entry]:
        for stored in self.tensors:
            yield stored.name, CODES[DTYPES[self.dtype_of(stored)]], stored.shape

    def arrays(self) -> Iterator[Array]:
        """In the order of `entries`, those that are one weight a few rows at a time. Raises GGUFError."""
        for stored in self.tensors:
            dtype = self.dtype_of(stored)
            if stored.is_one:
                ((name, _),) = stored.parts.items()
                yield from (cast(chunk, dtype) for chunk in self.weights[name].chunks())
            else:
                yield stored.join({name: cast(self.weights[name].values(), dtype) for name in stored.parts})


@dataclass(frozen=True)
class Kept:
    """The weights in the layout that `tokenglass quantize` writes: matrices of evenly spaced nibbles keep them, and the
    rest is float32, or bfloat16 where the file has that or `dtype` says so."""

    config: ModelConfig
    weights: Mapping[str, Weight | Number]
    dtype: str = "auto"

    main_dtype = "float32"  # in which it is computed

    @property
    def metadata(self) -> dict[str, str]:
        return Quantisation("int4", "").metadata

    @cached_property
    def names(self) -> frozenset[str]:
        """Of the matrices that int4 holds; from their scales alone."""
        exact = {name: read_coded(weight).exact for name, weight in self.weights.items() if weight.type in READERS}
        return frozenset(keepable(exact, Blueprint.of(self.config)))

    @cached_property
    def matrices(self) -> frozenset[str]:
        """All that int4 could hold, and the tables that stay on the disk."""
        blueprint = Blueprint.of(self.config)
        return blueprint.quantisable | blueprint.on_disk

    @cached_property
    def ordered_weights(self) -> list[tuple[str, dict[str, tuple[str, Shape]]]]:
        """Each weight with its tensors; those of wider numbers come first, so that each lies at its alignment."""
        parts = [
            (name, stored_parts(name, weight.shape, "int4" if name in self.names else None, {}))
            if name in self.names or name not in self.matrices
            else (name, {name: (self.code_of(weight), weight.shape)})
            for name, weight in self.weights.items()
        ]
        return sorted(parts, key=lambda part: -min(STORED[code].itemsize for code, _ in part[1].values()))

    def code_of(self, weight: Weight | Number) -> str:
        """safetensors' dtype of a matrix that is not kept, or of a table."""
        exact = "bfloat16" if EXACT.get(weight.type) == "bfloat16" else "float32"
        return CODES[DTYPES[exact if self.dtype == "auto" else self.dtype]]

    @property
    def entries(self) -> Iterator[Entry]:
        for _, parts in self.ordered_weights:
            yield from ((part, code, shape) for part, (code, shape) in parts.items())

    def arrays(self) -> Iterator[Array]:
        """In the order of `entries`. Raises GGUFError."""
        for name, parts in self.ordered_weights:
            weight = self.weights[name]
            if name in self.names:
                yield from parts_of(name, read_coded(weight).to_exact()).values()
            else:
                (((code, _),)) = parts.values()
                dtype = next(dtype for dtype, kind in DTYPES.items() if CODES[kind] == code)
                yield from (cast(chunk, dtype) for chunk in weight.chunks())

    def __str__(self) -> str:
        """As in "210 of 211 matrices kept as int4 (Q4_1); Q8_0 became float32"."""
        matrices = [weight for name, weight in self.weights.items() if name in self.matrices]
        types = [
            f"{name}, its scales rounded to float16" if name in ROUNDED else name
            for name in sorted({weight.type for weight in matrices if weight.name in self.names})
        ]
        rest = sorted({(weight.type, self.code_of(weight)) for weight in matrices if weight.name not in self.names})
        became = {"F32": "float32", "BF16": "bfloat16"}
        others = [f"{name} {'is' if name == code else 'became'} {became[code]}" for name, code in rest]
        kept = f"{len(self.names)} of {len(matrices)} matrices kept as int4"
        return "; ".join((f"{kept} ({'; '.join(types)})" if types else kept, *others))


def read_coded(weight: Weight | Number) -> CodedMatrix:
    """A matrix whose type int4 may hold."""
    assert isinstance(weight, Weight), "a number is no matrix"
    matrix = READERS[weight.type](weight.blocks)
    return matrix if weight.columns is None else matrix.with_columns(weight.columns)


def write(path: Path, content: Numbers | Kept) -> Generator[Progress, None, None]:
    """Write the safetensors file; no more than one tensor is in memory. Raises GGUFError."""
    entries = [(*entry, nbytes_of(entry)) for entry in content.entries]
    total = sum(nbytes for *_, nbytes in entries)
    free = shutil.disk_usage(path.parent).free
    if total > free:
        raise GGUFError(f"the weights take {total:,} bytes and the disk of {path.parent} has {free:,}; make room first")
    head = header_of(entries, content.metadata)
    with path.open("wb") as out:
        out.write(head)
        for array in content.arrays():
            out.write(np.ascontiguousarray(array).view(np.uint8).data)
            yield Progress("importing", out.tell() - len(head), total)


def nbytes_of(entry: Entry) -> int:
    _, code, shape = entry
    return math.prod(shape) * STORED[code].itemsize

"""What a GGUF file says about itself: metadata and where its tensors lie. No gguf library, no torch here.

The library's own reader makes an array per value (half a minute for a common vocabulary) and trusts every length.
Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import GGUFError
from tokenglass.model.files import open_regular

MAGIC = b"GGUF"
GUESSING = "nextn_predict_layers"  # an architecture's key: how many layers at the end guess further tokens
VERSIONS = (2, 3)
MAX_KEYS = 2**12
MAX_VALUES = 2**21  # metadata values in all; the largest vocabularies need about 1.3 million
MAX_TEXT = 2**26  # bytes of metadata text in all
MAX_TENSORS = 2**14  # 16 for each of 1,024 layers
MAX_DIMENSIONS = 4
MAX_PARTS = 1000
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # struct's codes


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor: ggml's number for its type, its shape with the row length last, and its place in a file."""

    path: Path
    name: str
    type: int
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """The metadata of a file, or of the first of its parts, and the tensors of all."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[GGUFTensor, ...]

    @staticmethod
    def open(path: Path) -> GGUFFile:
        """Read the header, and those of the other parts where the file is the first of several. Raises GGUFError.

        Time and memory are bounded whatever they say.
        """
        first = _open(path)
        others = [_open(part) for part in other_parts(path, first.metadata.get("split.count", 1))]
        tensors = (*first.tensors, *(tensor for part in others for tensor in part.tensors))
        if len({tensor.name for tensor in tensors}) < len(tensors):
            raise GGUFError(f"{path}: its parts hold two tensors of one name")
        return GGUFFile(path, first.metadata, tensors)


def other_parts(path: Path, count: object) -> list[Path]:
    """The files beside the first of `count` parts, as llama.cpp names them. Raises GGUFError."""
    if type(count) is not int or not 0 <= count <= MAX_PARTS:
        raise GGUFError(f"{path}: split.count is {quote(count)}; expected a number up to {MAX_PARTS}")
    if count <= 1:
        return []
    stem, end = path.name.removesuffix(f"-00001-of-{count:05}.gguf"), f"-of-{count:05}.gguf"
    if stem == path.name:
        raise GGUFError(f"{path}: one of {count} parts; give the first, whose name ends in -00001{end}")
    return [path.with_name(f"{stem}-{number:05}{end}") for number in range(2, count + 1)]


def _open(path: Path) -> GGUFFile:
    """The header of one file."""
    try:
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, data)
    except FileNotFoundError:
        raise GGUFError(f"{path}: no such file") from None
    except OSError as error:
        raise GGUFError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # mmap's word for an empty file
        raise GGUFError(f"{path}: not a GGUF file ({error})") from None


def _read(path: Path, data: mmap.mmap) -> GGUFFile:
    cursor = Cursor(path, data)
    if data[:4] != MAGIC:
        raise GGUFError(f"{path}: not a GGUF file")
    cursor.at = 4
    version = cursor.scalar("I")
    if version not in VERSIONS:
        raise GGUFError(f"{path}: GGUF version {version} is not supported (supported: 2 and 3, little-endian)")
    num_tensors, num_keys = cursor.scalar("Q"), cursor.scalar("Q")
    if num_tensors > MAX_TENSORS:
        raise cursor.damage_error(f"{num_tensors:,} tensors")
    if num_keys > MAX_KEYS:
        raise cursor.damage_error(f"{num_keys:,} keys")
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.text()
        if key in metadata:
            raise cursor.damage_error(f"{quote(key)} is there twice")
        metadata[key] = cursor.value(cursor.scalar("I"))
    entries = [cursor.tensor() for _ in range(num_tensors)]
    if len({tensor.name for tensor in entries}) < num_tensors:
        raise cursor.damage_error("two tensors of one name")
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.damage_error(f"an alignment of {quote(alignment)}")
    start = -(-cursor.at // alignment) * alignment
    tensors = (replace(tensor, offset=start + tensor.offset) for tensor in entries)
    return GGUFFile(path, metadata, tuple(tensors))


class Cursor:
    """A place in the mapped file that moves on as values are read, and the budget that is left."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path = path
        self.data = data
        self.at = 0
        self.values_left = MAX_VALUES
        self.text_left = MAX_TEXT

    def damage_error(self, what: str) -> GGUFError:
        return GGUFError(f"{self.path}: damaged or incomplete ({what})")

    def take(self, nbytes: int) -> bytes:
        if nbytes > len(self.data) - self.at:
            raise self.damage_error(f"its header says {nbytes:,} bytes where {len(self.data) - self.at:,} are left")
        self.at += nbytes
        return self.data[self.at - nbytes : self.at]

    def spend(self, count: int) -> int:
        self.values_left -= count
        if self.values_left < 0:
            raise self.damage_error(f"its header holds more than {MAX_VALUES:,} values")
        return count

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        length = self.scalar("Q")
        self.text_left -= length
        if self.text_left < 0:
            raise self.damage_error(f"its header holds more than {MAX_TEXT:,} bytes of text")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise self.damage_error("text that is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind != ARRAY:
            raise self.damage_error(f"a value of unknown type {kind}")
        items, count = self.scalar("I"), self.spend(self.scalar("Q"))
        if items == STRING:
            return tuple(self.text() for _ in range(count))
        if items not in SCALARS:
            raise self.damage_error(f"an array of type {items}")
        code = SCALARS[items]
        return struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}")))

    def tensor(self) -> GGUFTensor:
        name, dimensions = self.text(), self.scalar("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.damage_error(f"a tensor of {dimensions} dimensions")
        sizes = [self.scalar("Q") for _ in range(dimensions)]
        if not 1 <= math.prod(sizes) < 2**63:
            raise self.damage_error(f"{quote(name)} of shape {sizes}")
        return GGUFTensor(self.path, name, self.scalar("I"), tuple(reversed(sizes)), self.scalar("Q"))

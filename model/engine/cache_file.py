"""One row of a cache in a file, so that a prompt that was read once need not be read again: safetensors, an array for
each group of layers."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokenglass.model.checkpoint.arrays import CODES, Array, read_arrays
from tokenglass.model.checkpoint.headers import Header, read_header
from tokenglass.model.checkpoint.writer import write_safetensors
from tokenglass.model.config.fields import quote
from tokenglass.model.engine.cache import NO_TOKEN, CacheTail, KVCache
from tokenglass.model.engine.keys_values import Cut
from tokenglass.model.errors import CacheFileError, CheckpointError

FORMAT = "tokenglass cache 1"


def save_row(path: Path, cache: KVCache, identity: Mapping[str, str], row: int = 0) -> int:
    """Write a row, which is empty afterwards, whole or not at all; its positions. Raises OSError.

    `identity` is all that its numbers depend on.
    """
    planned_length, tail = cache.rows[row].planned_length, cache.detach(row, 0)
    arrays = {name_of(group): cache.to_numpy(cut.array) for group, cut in enumerate(tail.cuts)}
    metadata = {
        **identity,
        "format": FORMAT,
        "planned_length": str(planned_length),
        "token_ids": json.dumps(tail.token_ids),
        "starts": json.dumps([cut.start for cut in tail.cuts]),
        "crc32": checksum(arrays.values()),
    }
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # it holds what was said
        for _ in write_safetensors(part, arrays, metadata):
            pass
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return tail.length


def load_row(path: Path, cache: KVCache, identity: Mapping[str, str], vocab_size: int, row: int = 0) -> bool:
    """Fill an empty row from a file; False, and nothing, where its positions have other rotary factors.

    Raises CacheFileError where the file is damaged, no saved cache, or one of another identity.
    """
    header = read(path)
    check_identity(path, header.metadata, identity)
    tail = read_tail(path, header, cache, vocab_size, row)
    planned_length = number(header.metadata.get("planned_length"))
    if planned_length is None:
        raise damaged(path, "its length was not planned")
    if not cache.serves(planned_length):
        return False
    cache.attach(row, tail)
    return True


def read(path: Path) -> Header:
    """Raises CacheFileError."""
    if not path.exists():
        raise CacheFileError(f"{path}: no such file; --save-cache FILE writes one")
    try:
        header = read_header(path)
    except CheckpointError as error:
        raise CacheFileError(str(error)) from None
    if header.metadata.get("format") != FORMAT:
        raise CacheFileError(f"{path}: is no saved cache that this program can read; --save-cache FILE writes one")
    return header


def check_identity(path: Path, metadata: Mapping[str, str], identity: Mapping[str, str]) -> None:
    """Raises CacheFileError where a number could be another one in this run."""
    for name, ours in identity.items():
        theirs = metadata.get(name, "nothing")
        if theirs != ours:
            raise CacheFileError(
                f"{path}: was saved with another {name} ({quote(theirs[:16])}, here {quote(ours[:16])}); "
                "save it anew with --save-cache"
            )


def read_tail(path: Path, header: Header, cache: KVCache, vocab_size: int, row: int) -> CacheTail:
    """What was saved, as `attach` takes it. Raises CacheFileError."""
    token_ids, starts = (numbers(header.metadata.get(name)) for name in ("token_ids", "starts"))
    if token_ids is None or not all(NO_TOKEN <= token_id < vocab_size for token_id in token_ids):
        raise damaged(path, "its token ids are none of this model")
    if not 0 < len(token_ids) <= cache.limit:
        raise damaged(path, f"{len(token_ids):,} positions, of {cache.limit:,} that the context holds")
    states = cache.rows[row].states
    if starts is None or len(starts) != len(states):
        raise damaged(path, "it has other groups of layers than the model")
    infos = {info.name: info for info in header.tensors}
    for group, (state, start) in enumerate(zip(states, starts, strict=True)):
        info = infos.get(name_of(group))
        code = CODES[cache.to_numpy(state.blank).dtype]
        if not 0 <= start < len(token_ids) or (start and state.window is None):
            raise damaged(path, "positions are missing")
        if info is None or (info.dtype, info.shape) != (code, state.cut_shape(len(token_ids) - start)):
            raise damaged(path, f"{name_of(group)} has not the shape that its positions take")
    try:
        arrays = dict(read_arrays(header.tensors, [name_of(group) for group in range(len(states))]))
    except CheckpointError as error:
        raise CacheFileError(str(error)) from None
    ordered = [arrays[name_of(group)] for group in range(len(states))]
    if checksum(ordered) != header.metadata.get("crc32"):
        raise damaged(path, "its checksum is another")
    cuts = (Cut(start, cache.from_numpy(array)) for start, array in zip(starts, ordered, strict=True))
    return CacheTail(0, tuple(token_ids), tuple(cuts))


def name_of(group: int) -> str:
    return f"keys_and_values.{group}"


def checksum(arrays: Iterable[Array]) -> str:
    """CRC-32 of all bytes."""
    code = 0
    for array in arrays:
        code = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, code)
    return f"{code:08x}"


def numbers(text: str | None) -> list[int] | None:
    """A list of whole numbers from JSON; None for anything else."""
    try:
        values: Any = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(values, list) and all(type(value) is int for value in values)
    return values if is_list else None


def number(text: str | None) -> int | None:
    """A whole number above 0."""
    one = numbers(f"[{text}]")
    return one[0] if one and len(one) == 1 and 0 < one[0] < 2**63 else None


def damaged(path: Path, what: str) -> CacheFileError:
    return CacheFileError(f"{path}: damaged or incomplete ({what}); save it anew with --save-cache")

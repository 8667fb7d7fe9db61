"""Which files of a checkpoint folder hold its weights, and which tensors are expected in each. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

from tokenglass.model.checkpoint.headers import Header, TensorInfo
from tokenglass.model.config.fields import first_few, quote, shown_name
from tokenglass.model.errors import CheckpointError
from tokenglass.model.files import MAX_INDEX, read_json

MAX_FILE_NAME = 255
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def shards_of(folder: Path) -> dict[Path, frozenset[str] | None]:
    """Each weight file with the tensors expected in it (None: whatever it holds).

    A single file comes before an index, as in transformers.
    """
    if (folder / SINGLE).exists():
        return {folder / SINGLE: None}
    if (folder / INDEX).exists():
        return {folder / file: names for file, names in read_index(folder / INDEX).items()}
    other = next((p.name for p in sorted(folder.iterdir()) if p.suffix in (".bin", ".pt", ".pth", ".gguf")), None)
    note = f" (it holds {shown_name(other)}, which this program does not read)" if other else ""
    raise CheckpointError(f"{folder}: no {SINGLE} or {INDEX}{note}")


def read_index(path: Path) -> dict[str, frozenset[str]]:
    """The files that an index names, each with its tensors. Raises CheckpointError, ConfigError."""
    weight_map = read_json(path, MAX_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: no weight_map")
    shards: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if not is_file_name(file):
            raise CheckpointError(
                f"{path}: {shown_name(name)} points to {quote(file)}, which is not a file of this folder"
            )
        shards.setdefault(file, set()).add(name)
    return {file: frozenset(names) for file, names in shards.items()}


def is_file_name(name: object) -> TypeGuard[str]:
    """Whether this names a file of the folder itself."""
    plain = isinstance(name, str) and name == Path(name).name and name not in ("", ".", "..")
    return plain and len(str(name)) <= MAX_FILE_NAME and str(name).isprintable()


def expected_tensors(file: Path, header: Header, names: frozenset[str] | None) -> tuple[TensorInfo, ...]:
    """Those of a file that belong to the checkpoint. Raises CheckpointError where some are not there."""
    if names is None:
        return header.tensors
    absent = [shown_name(name) for name in sorted(names - {info.name for info in header.tensors})]
    if absent:
        raise CheckpointError(f"{file}: the index places {first_few(absent)} here, but the file does not hold it")
    return tuple(info for info in header.tensors if info.name in names)

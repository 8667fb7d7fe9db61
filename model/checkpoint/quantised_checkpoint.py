"""Quantised models kept as checkpoint folders: written once, then loaded memory-mapped as they are."""

from __future__ import annotations

import math
import shutil
from collections.abc import Generator
from pathlib import Path

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.partial import complete_or_nothing
from tokenglass.model.checkpoint.quantised import Int4Weight, Int8Weight, QuantizedWeight, Quantizer
from tokenglass.model.checkpoint.quantised_layout import Quantisation
from tokenglass.model.checkpoint.shards import SINGLE
from tokenglass.model.checkpoint.small_files import belongs_to_model
from tokenglass.model.checkpoint.weights import Weights, iterate_weights, plan_reading
from tokenglass.model.checkpoint.writer import write_safetensors
from tokenglass.model.errors import CheckpointError
from tokenglass.model.files import MAX_TOKENIZER, read_bytes
from tokenglass.model.progress import Progress


def quantize_checkpoint(source: Checkpoint, folder: Path, quantizer: Quantizer) -> Generator[Progress, None, None]:
    """Write `folder`: the weights as `quantizer` makes them, and the other small files as they are.

    There is nothing until all of it is there. Raises StoreError where something is there already, CheckpointError where
    the weights cannot be quantised or the disk has no room.
    """
    if source.quantisation is not None:
        raise CheckpointError(f"{source.folder}: is quantised already, to {source.quantisation.format}")
    small = small_files(source.folder)
    work = f"quantize {source.fingerprint} {quantizer.format} {quantizer.calibration}"
    with complete_or_nothing(folder, work) as partial:
        plan = plan_reading(source)
        weights: Weights = {}
        done, total = 0, plan.blueprint.num_parameters
        keep = (quantizer.format,)
        for name, weight in iterate_weights(source, plan, dtype=source.config.dtype, quantizer=quantizer, keep=keep):
            weights[name] = weight
            done += math.prod(plan.blueprint.shapes[name])
            yield Progress("quantising", done, total)
        arrays = {part: array for name, weight in weights.items() for part, array in parts_of(name, weight).items()}
        needed, free = sum(array.nbytes for array in arrays.values()), shutil.disk_usage(partial).free
        if needed > free:
            raise CheckpointError(f"{folder}: the weights take {needed:,} bytes and the disk has {free:,}; make room")
        for name in small:
            file, copy = source.folder / name, partial / name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(read_bytes(file, MAX_TOKENIZER, CheckpointError))
        facts = Quantisation(quantizer.format, source.fingerprint, quantizer.calibration)
        yield from write_safetensors(partial / SINGLE, arrays, facts.metadata)


def parts_of(name: str, weight: Array | QuantizedWeight) -> dict[str, Array]:
    """The arrays that stand for a weight in a file."""
    if isinstance(weight, Int8Weight | Int4Weight):
        return {f"{name}.{part}": array for part, array in weight.parts.items()}
    return {name: weight}


def small_files(folder: Path) -> list[str]:
    """What belongs to a model beside its weights, by its known names as seen from the folder.

    Raises CheckpointError for links that lead elsewhere: the new folder may be published, and what they lead to is not
    a stranger's to choose.
    """
    names = (file.relative_to(folder).as_posix() for file in (*folder.glob("*"), *folder.glob("*/*.jinja")))
    files = sorted(name for name in names if belongs_to_model(name))
    for name in files:
        if not belongs(folder / name, folder):
            raise CheckpointError(f"{folder / name}: a link out of the folder is not copied; put the file itself there")
    return files


def belongs(file: Path, folder: Path) -> bool:
    """Whether a file lies in the folder, or in the Hugging Face cache's store of files that this snapshot links to."""
    target, home = file.resolve(), folder.resolve()
    store = home.parent.parent / "blobs"
    return target.is_relative_to(home) or (home.parent.name == "snapshots" and target.parent == store)

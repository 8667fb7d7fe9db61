"""The weights of a checkpoint, by the blueprint's names: audited, read, cut, and quantised where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, TypeVar

import numpy as np

from tokenglass.model.checkpoint.adapting import Change
from tokenglass.model.checkpoint.arrays import BFLOAT16, STORED, Array, cast, read_arrays, to_float32
from tokenglass.model.checkpoint.blueprint import ENDS, HEAD, Blueprint
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.layouts import Stored
from tokenglass.model.checkpoint.quantised import Int4Weight, Int8Weight, QuantizedWeight, Quantizer
from tokenglass.model.checkpoint.quantised_layout import Format, stored_parts
from tokenglass.model.errors import CheckpointError
from tokenglass.model.progress import Progress

Weights = dict[str, Array | QuantizedWeight]
T = TypeVar("T", Array | QuantizedWeight, Array)


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Every weight of a blueprint, and notes on what of the checkpoint is not used."""

    blueprint: Blueprint
    weights: Weights
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """Which stored tensors make the weights of which model."""

    blueprint: Blueprint
    layout: Mapping[str, Stored]
    changes: Mapping[str, Change]  # by adapters, of what is called so
    twins: Mapping[str, Stored]  # what a tied tensor is as well, where adapters make two weights of it
    notes: tuple[str, ...]

    def weights_of(self, name: str, tensor: Array | CodedMatrix) -> Iterator[tuple[str, Array | CodedMatrix, bool]]:
        """The weights that are made of a stored tensor, and whether adapters change them. Raises CheckpointError."""
        for stored in (self.layout[name], *([self.twins[name]] if name in self.twins else [])):
            change = self.changes.get(stored.name)
            if isinstance(tensor, CodedMatrix) and change is None:
                yield from ((part, matrix, False) for part, matrix in tensor.divide(stored).items())
                continue
            array = tensor.numbers("float32") if isinstance(tensor, CodedMatrix) else tensor
            try:
                changed = array if change is None else change.apply(array)
            except CheckpointError as error:
                raise CheckpointError(f"{stored.name}: {error}") from None
            yield from ((part, weight, change is not None) for part, weight in stored.cut(changed).items())

    def holds(self, name: str) -> bool:
        """Whether a weight is stored under its own name."""
        return any(name in stored.parts for stored in self.layout.values())


def read_weights(
    checkpoint: Checkpoint,
    *,
    dtype: str,
    quantizer: Quantizer | None = None,
    place: Callable[[Array], Array] = lambda array: array,
    keep: Collection[Format] = ("int8", "int4"),
) -> Generator[Progress, None, ModelWeights]:
    """Every weight of a checkpoint, one after another. Raises CheckpointError where the files do not hold them all.

    Weights whose dtype is already right stay mapped, and so do tables of which a step reads one row. `quantizer` makes
    fewer bits of the matrices, and float32 of the rest; quantised checkpoints are read as they are. Of the packed
    matrices of a release, those that a format of `keep` holds exactly become that. What is made in memory by a change
    of dtype is kept where `place` puts it.
    """
    if checkpoint.quantisation is not None:
        return (yield from _read_quantised(checkpoint, checkpoint.quantisation.format))
    plan = plan_reading(checkpoint)
    arrays = iterate_weights(checkpoint, plan, dtype=dtype, quantizer=quantizer, place=place, keep=keep)
    weights = yield from collect_weights(arrays, checkpoint.nbytes_as(dtype))
    note = widening_note(checkpoint, dtype) if quantizer is None else None
    return ModelWeights(plan.blueprint, weights, plan.notes if note is None else (*plan.notes, note))


def plan_reading(checkpoint: Checkpoint) -> ReadingPlan:
    """The plan for a checkpoint that is not of our own layouts, audited. Raises CheckpointError.

    Where the config ties the head to the embedding, one of the two is enough; two that differ are both used, as in
    transformers.
    """
    layout, blueprint, packing = checkpoint.layout, checkpoint.blueprint, checkpoint.packing
    packed, of_packed = (
        (frozenset(packing.matrices), packing.names) if packing is not None else (frozenset(), frozenset())
    )
    changes = checkpoint.changes
    untied = Blueprint.of(replace(checkpoint.config, tie_word_embeddings=False))
    present = packed | {info.name for info in checkpoint.tensors}
    notes: list[str | None] = []
    twins: dict[str, Stored] = {}
    if blueprint.tied:
        ends = [name for name, stored in layout.items() if not ENDS.isdisjoint(stored.parts)]
        if not changes.keys().isdisjoint(ends):  # an adapter of one of the two is none of the other
            blueprint = untied
            twins = {held: layout[other] for held, other in permutations(ends, 2) if other not in present}
        if not present.isdisjoint(ends):  # one of the two is enough
            layout = {name: stored for name, stored in layout.items() if name in present or name not in ends}
    checkpoint.audit({name: stored.shape for name, stored in layout.items() if name not in packed})
    check_constants(checkpoint, blueprint.constants)
    notes.append(checkpoint.unread(layout.keys() | of_packed | blueprint.constants.keys()))
    if blueprint.tied and present.issuperset(ends) and len(ends) > 1 and differ(checkpoint, ends):
        notes.append("config.json ties the head to the embedding, but the weights hold two; both are used")
        blueprint = untied
    return ReadingPlan(blueprint, layout, changes, twins, tuple(note for note in notes if note is not None))


def check_constants(checkpoint: Checkpoint, constants: Mapping[str, float]) -> None:
    """Raises CheckpointError where the files hold another number; bfloat16 may have rounded it."""
    stored = [info for info in checkpoint.tensors if info.name in constants and info.dtype in STORED]
    for name, array in read_arrays(stored, constants):
        value = constants[name]
        if not np.allclose(to_float32(array), value, rtol=0.01, atol=0):
            raise CheckpointError(f"{name} is not {value}; it would change the numbers, and is not supported")


def differ(checkpoint: Checkpoint, names: Collection[str]) -> bool:
    """Whether two tensors hold other numbers; packed ones may."""
    if checkpoint.packing is not None and not checkpoint.packing.matrices.keys().isdisjoint(names):
        return True
    first, second = (array for _, array in read_arrays(checkpoint.tensors, names))
    return not same_bits(first, second)


def same_bits(first: Array, second: Array) -> bool:
    """NaN too."""
    same_kind = first.dtype == second.dtype and first.shape == second.shape
    return same_kind and bool((first.view(np.uint8) == second.view(np.uint8)).all())


def iterate_weights(
    checkpoint: Checkpoint,
    plan: ReadingPlan,
    *,
    dtype: str,
    quantizer: Quantizer | None = None,
    place: Callable[[Array], Array] = lambda array: array,
    keep: Collection[Format] = (),
    cut: Callable[[str, Array], Array] = lambda _, array: array,
) -> Iterator[tuple[str, Array | QuantizedWeight]]:
    """The weights of a checkpoint that is not of our own layouts, one at a time, or what `cut` takes of them; see
    `read_weights`."""
    for part, piece, is_changed in read_pieces(checkpoint, plan):
        name = plan.blueprint.head_weight if part == f"{HEAD}.weight" else part
        if name != part and plan.holds(name):
            continue  # a tied head, and the embedding is there
        if isinstance(piece, CodedMatrix) and checkpoint.kept_formats.get(part) in keep:
            yield name, piece.to_exact().with_parts(place)
            continue
        array = cut(name, piece.numbers(dtype) if isinstance(piece, CodedMatrix) else piece)
        if name in plan.blueprint.on_disk and array.dtype in (np.float32, BFLOAT16) and not is_changed:
            yield name, array
            continue
        exact = is_changed and quantizer is not None  # rounded once
        values = array if exact else cast(array, "float32" if name in plan.blueprint.in_float32 else dtype)
        if quantizer is None:
            yield name, values if values is piece and not is_changed else place(values)
        elif stored := plan.blueprint.format_of(name, quantizer.format):
            try:
                yield name, quantizer.quantize(values, stored, quantizer.squares.get(name))
            except CheckpointError as error:
                raise CheckpointError(f"{name.removesuffix('.weight')}: {error}") from None
        else:
            yield name, to_float32(values)


def read_pieces(checkpoint: Checkpoint, plan: ReadingPlan) -> Iterator[tuple[str, Array | CodedMatrix, bool]]:
    """Every tensor that a plan names, as the weights in it, and whether adapters change them: mapped arrays, and packed
    matrices as they are stored."""
    packing = checkpoint.packing
    packed = packing.matrices.keys() & plan.layout.keys() if packing is not None else frozenset()
    on_disk = plan.blueprint.on_disk
    by_row = {name for name, stored in plan.layout.items() if not on_disk.isdisjoint(stored.parts)}
    for name, array in read_arrays(checkpoint.tensors, plan.layout.keys() - packed, by_row):
        yield from plan.weights_of(name, array)
    for name in plan.layout:
        if packing is not None and name in packed:
            yield from plan.weights_of(name, packing.read(name))


def widening_note(checkpoint: Checkpoint, dtype: str) -> str | None:
    """What a release's packed weights become where int4 and int8 do not hold them exactly; None where all are kept."""
    packing = checkpoint.packing
    if packing is None:
        return None
    parts = [part for name in packing.matrices for part in packing.layout[name].parts]
    widened = len(parts) - len(checkpoint.kept_formats)
    rounded = dtype == "bfloat16" and any(
        info.dtype == "F16" and info.name not in packing.names for info in checkpoint.tensors
    )
    texts = []
    if widened:
        texts.append(
            f"{packing.method.name}: {widened} of {len(parts)} matrices are widened to {dtype}, "
            "which int4 and int8 do not hold exactly (--quantize rounds them to either)"
        )
    if rounded:
        texts.append("float16 is rounded to bfloat16 (--dtype float32 keeps it)")
    return "; ".join(texts) or None


def collect_weights(pairs: Iterator[tuple[str, T]], total: int) -> Generator[Progress, None, dict[str, T]]:
    """What comes, by its name; the progress is in bytes of what was made."""
    weights, done = {}, 0
    for name, weight in pairs:
        weights[name] = weight
        done += weight.nbytes
        yield Progress("loading", done, total)
    return weights


def _read_quantised(checkpoint: Checkpoint, stored: Format) -> Generator[Progress, None, ModelWeights]:
    """What `tokenglass quantize` wrote, mapped."""
    checkpoint.check_layers()
    blueprint = checkpoint.blueprint
    present = {info.name: info.dtype for info in checkpoint.tensors}
    if not present.keys().isdisjoint(
        (f"{HEAD}.weight", f"{HEAD}.weight.scales")
    ):  # of its own, whatever the config says
        blueprint = Blueprint.of(replace(checkpoint.config, tie_word_embeddings=False))
    formats = {name: format_in(blueprint, name, stored, present) for name in blueprint.shapes}
    parts = {name: stored_parts(name, shape, formats[name], present) for name, shape in blueprint.shapes.items()}
    expected = {part: kind for kinds in parts.values() for part, kind in kinds.items()}
    checkpoint.audit(
        {name: shape for name, (_, shape) in expected.items()}, {name: dtype for name, (dtype, _) in expected.items()}
    )
    arrays = read_arrays(checkpoint.tensors, expected.keys(), blueprint.on_disk)
    read = yield from collect_weights(arrays, checkpoint.nbytes)
    weights: Weights = {
        name: read[name]
        if name in kinds
        else assemble([read[part] for part in kinds], blueprint.shapes[name], formats[name])
        for name, kinds in parts.items()
    }
    return ModelWeights(blueprint, weights)


def format_in(blueprint: Blueprint, name: str, stored: Format, present: Collection[str]) -> Format | None:
    """Of a weight in a file of this format: the blueprint's, but where the whole of a file or of a release was int4."""
    usual = blueprint.format_of(name, stored)
    return stored if usual is not None and f"{name}.packed" in present else usual


def assemble(parts: list[Any], shape: tuple[int, ...], stored: Format | None) -> QuantizedWeight:
    """A weight from its parts, in the order of `stored_parts`."""
    out, in_features = shape
    if stored == "int8":
        values, scales, *factors = parts
        return Int8Weight(values, scales, in_features, *factors)
    packed, scales, offsets = parts
    return Int4Weight(packed, scales, offsets, out, in_features)


def step_bytes(blueprint: Blueprint, weights: Weights) -> int:
    """Bytes of weights that one decode step reads: all but tables of which it reads a row, and experts it passes by."""
    shares = blueprint.shares
    read = (weight.nbytes * shares.get(name, 1) for name, weight in weights.items() if name not in blueprint.read_once)
    return round(sum(read))

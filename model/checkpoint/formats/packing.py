"""Which stored tensors of a quantised release stand for which matrix, and how they are read: one matrix at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tokenglass.model.checkpoint.arrays import STORED, read_arrays
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.formats.method import WEIGHT, Method
from tokenglass.model.checkpoint.formats.parts import Parts
from tokenglass.model.checkpoint.headers import TensorInfo
from tokenglass.model.checkpoint.layouts import Stored
from tokenglass.model.checkpoint.quantised_layout import Format
from tokenglass.model.config.fields import shown_name
from tokenglass.model.errors import CheckpointError

PLAIN = ("F32", "BF16", "F16")  # dtypes of a matrix that is not packed
# Ranges of activations and of cached keys and values, none of which is quantised here
RANGES = re.compile(r"\.(input|output|activation|[kvq])_(scale|zero_point|global_scale|scale_ub)$")


@dataclass(frozen=True)
class Packing:
    """The packed matrices of a checkpoint by their names in `layout`, each with its tensors by their roles."""

    method: Method
    layout: Mapping[str, Stored] = field(repr=False)
    matrices: Mapping[str, Mapping[str, TensorInfo]] = field(repr=False)

    @staticmethod
    def of(method: Method, tensors: Collection[TensorInfo], layout: Mapping[str, Stored]) -> Packing:
        """Those among these tensors: a matrix is packed where it has more than a weight of an ordinary dtype."""
        matrices: dict[str, dict[str, TensorInfo]] = {}
        for info in tensors:
            role = method.role_of(info.name)
            if role is not None:
                matrices.setdefault(method.unpacked_name(info.name), {})[role] = info
        packed = {
            name: parts
            for name, parts in matrices.items()
            if name in layout and (parts.keys() != {WEIGHT} or parts[WEIGHT].dtype not in PLAIN)
        }
        return Packing(method, layout, packed)

    @cached_property
    def names(self) -> frozenset[str]:
        """Of all tensors that belong to packed matrices."""
        return frozenset(info.name for parts in self.matrices.values() for info in parts.values())

    @property
    def num_weights(self) -> int:
        return sum(math.prod(self.layout[name].shape) for name in self.matrices)

    @property
    def bits_per_weight(self) -> float:
        """Scales and all else counted."""
        stored = sum(info.nbytes for parts in self.matrices.values() for info in parts.values())
        return 8 * stored / max(1, self.num_weights)

    def read(self, name: str) -> CodedMatrix:
        """A matrix (out, in); its codes stay in the file until they are asked for.

        Raises CheckpointError where its parts are missing or do not fit.
        """
        stored, infos = self.layout[name], self.matrices[name]
        if bool(stored.experts) != self.method.stacked or (stored.transposed and not stored.experts):
            raise CheckpointError(
                f"{shown_name(name)}: packed by {self.method.name}, which is read for projections only"
            )
        strange = next((info for info in infos.values() if info.dtype not in STORED), None)
        if strange is not None:
            raise CheckpointError(f"{shown_name(strange.name)} is {shown_name(strange.dtype)}, which is not read")
        *_, in_features = next(iter(stored.parts.values()))
        out = math.prod(stored.shape) // in_features
        arrays = dict(read_arrays(infos.values(), {info.name for info in infos.values()}))
        by_role = {role: arrays[info.name] for role, info in infos.items()}
        return self.method.read(Parts(name, (out, in_features), by_role, max(1, stored.experts)))

    def kept_formats(self, blueprint: Blueprint, changed: Collection[str] = ()) -> dict[str, Format]:
        """The weights that int4 or int8 holds exactly, with which: of matrices that no adapter changes."""
        exact: dict[str, Format | None] = {}
        for name in self.matrices:
            matrix = self.read(name)
            exact |= dict.fromkeys(self.layout[name].parts, None if name in changed else matrix.exact)
        return keepable(exact, blueprint)


def keepable(exact: Mapping[str, Format | None], blueprint: Blueprint) -> dict[str, Format]:
    """Of weights that a layout holds exactly, those that may be kept in it: those side by side are held alike."""
    formats = {name: stored for name, stored in exact.items() if stored is not None and name in blueprint.quantisable}
    for layer in blueprint.layers:
        for inputs in layer.side_by_side:
            names = [f"{part.name}.weight" for part in inputs]
            if len({formats.get(name) for name in names}) > 1:
                for name in names:
                    formats.pop(name, None)
    return formats

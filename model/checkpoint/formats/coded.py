"""A matrix as a release packs it: codes of a few bits, and what they are worth in each group of columns.

    weight = (value of its code - zero of its group) * scale + offset

Codes stay packed until they are asked for, so that scales alone tell what a matrix will take in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import DTYPES, Array, cast
from tokenglass.model.checkpoint.layouts import Stored
from tokenglass.model.checkpoint.quantised import Int4Weight, Int8Weight, QuantizedWeight, by_panel, in_panels
from tokenglass.model.checkpoint.quantised_layout import GROUP, STEP, Format

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
CHUNK = 2**18  # weights that are decoded at once, which stay in a processor's cache


@dataclass(frozen=True, slots=True)
class CodedMatrix:
    """A matrix (out, in). Every part has one row for each row of the matrix.

    `scales`, `zeros` and `offsets` are float32 (out, groups), each for `group` columns side by side, or for those that
    `group_of` (in,) gives to a group. `values` are float32, by code; None where a code is its own value.
    """

    shape: tuple[int, int]
    bits: int
    codes: Callable[[], Array]  # uint8 or int8 (out, in)
    scales: Floats
    group: int
    zeros: Floats | None = None
    offsets: Floats | None = None
    values: Floats | None = None
    group_of: Indices | None = None

    def __post_init__(self) -> None:
        groups = self.scales.shape[1]
        if self.group_of is None and -(-self.shape[1] // self.group) != groups:
            raise ValueError("scales are (out, groups)")
        for part in (self.scales, self.zeros, self.offsets):
            if part is not None and part.shape != (self.shape[0], groups):
                raise ValueError("scales, zeros and offsets are (out, groups)")

    @property
    def exact(self) -> Format | None:
        """The layout that holds every weight as it is; None where neither does.

        int4 takes evenly spaced values in groups of whole 32s, whose scale and offset float16 holds; int8 a scale for
        each row, and no offset.
        """
        if self.values is not None or self.group_of is not None:
            return None
        one_group = self.scales.shape[1] == 1
        if self.bits <= 4 and (one_group or self.group % GROUP == 0):
            return "int4" if fits_float16(self.scales) and fits_float16(self.steps_from_zero) else None
        if not one_group or self.offsets is not None or not np.isfinite(self.scales).all():
            return None
        return None if self.zeros is not None and (self.zeros != 2 ** (self.bits - 1)).any() else "int8"

    @property
    def steps_from_zero(self) -> Floats:
        """What code 0 is worth, (out, groups)."""
        if self.zeros is None:
            return np.zeros_like(self.scales) if self.offsets is None else self.offsets
        with np.errstate(over="ignore", invalid="ignore"):
            return -self.zeros * self.scales

    def kept(self) -> QuantizedWeight:
        """The same weights in the layout that is `exact`."""
        out, in_features = self.shape
        codes = self.codes()
        if self.exact == "int8":
            signed = codes if self.zeros is None else (codes.astype(np.int16) - 2 ** (self.bits - 1)).astype(np.int8)
            filled = np.pad(signed, ((0, 0), (0, -in_features % STEP)))
            return Int8Weight(in_panels(filled), np.ascontiguousarray(self.scales[:, 0]), in_features)
        grouped = np.pad(codes, ((0, 0), (0, -in_features % GROUP))).reshape(out, -1, GROUP)
        packed = grouped[..., : GROUP // 2] | grouped[..., GROUP // 2 :] << 4
        scales, offsets = (
            by_panel(np.repeat(part.astype(np.float16), self.repeats, axis=1)[:, : grouped.shape[1]])
            for part in (self.scales, self.steps_from_zero)
        )
        return Int4Weight(in_panels(packed.reshape(out, -1)), scales, offsets, out, in_features)

    @property
    def repeats(self) -> int:
        """Groups of 32 in a group of these."""
        return -(-self.group // GROUP)

    def divide(self, stored: Stored) -> dict[str, CodedMatrix]:
        """The weights in a stored tensor that is this matrix, by their names."""
        if stored.is_one:
            return dict.fromkeys(stored.parts, self)
        codes, scales = stored.cut(self.codes()), stored.cut(self.scales)
        zeros, offsets = ({} if part is None else stored.cut(part) for part in (self.zeros, self.offsets))
        return {
            name: replace(
                self,
                shape=codes[name].shape,
                codes=partial(codes.__getitem__, name),
                scales=scales[name],
                zeros=zeros.get(name),
                offsets=offsets.get(name),
            )
            for name in codes
        }

    def numbers(self, dtype: str) -> Array:
        """The weights (out, in) in float32, bfloat16 or float16, each computed in float32; on several threads."""
        rows, columns = self.shape
        codes, numbers = self.codes(), np.empty(self.shape, DTYPES[dtype])
        step = max(1, CHUNK // columns)

        def decode(start: int) -> None:
            some = slice(start, start + step)
            numbers[some] = cast(self.decode(codes[some], some), dtype)

        with ThreadPoolExecutor() as pool:
            list(pool.map(decode, range(0, rows, step)))
        return numbers

    def decode(self, codes: Array, rows: slice) -> Floats:
        """The weights of some rows in float32."""
        weights: Floats = codes.astype(np.float32) if self.values is None else np.take(self.values, codes, mode="clip")
        with np.errstate(over="ignore", invalid="ignore"):
            if self.zeros is not None:
                self.by_group(np.subtract, weights, self.zeros[rows])
            self.by_group(np.multiply, weights, self.scales[rows])
            if self.offsets is not None:
                self.by_group(np.add, weights, self.offsets[rows])
        return weights

    def by_group(self, change: np.ufunc, weights: Floats, part: Floats) -> None:
        """Change weights (rows, in) in place by the numbers (rows, groups) of their groups."""
        if self.group_of is not None:
            change(weights, part[:, self.group_of], out=weights)
        elif weights.shape[1] == part.shape[1] * self.group:
            grouped = weights.reshape(len(weights), -1, self.group)
            change(grouped, part[..., None], out=grouped)
        else:
            change(weights, np.repeat(part, self.group, axis=1)[:, : weights.shape[1]], out=weights)


def fits_float16(numbers: Floats) -> bool:
    """Whether float16 holds each of them as it is."""
    with np.errstate(over="ignore"):
        return bool((numbers.astype(np.float16).astype(np.float32) == numbers).all() and np.isfinite(numbers).all())

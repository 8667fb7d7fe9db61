"""A matrix as a release packs it: codes of a few bits, and what they are worth in each group of columns.

    weight = (value of its code - zero of its group) * scale + offset

Codes stay packed until they are asked for, so that scales alone tell what a matrix will take in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import DTYPES, Array, cast
from tokenglass.model.checkpoint.layouts import Stored
from tokenglass.model.checkpoint.quantised import Int4Weight, Int8Weight, QuantizedWeight, by_panel, in_panels
from tokenglass.model.checkpoint.quantised_layout import GROUP, PANEL, STEP, Format, int4_shapes, int8_shape

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
    codes: Callable[[slice], Array]  # of some rows, from a multiple of 16 on: uint8 or int8 (rows, in)
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

    def to_exact(self) -> QuantizedWeight:
        """The same weights in the layout that is `exact`."""
        out, in_features = self.shape
        if self.exact == "int8":
            values = np.empty(int8_shape(out, in_features), np.int8)
            self.work_on(lambda rows: put(values, rows, self.signed_codes(rows)))
            return Int8Weight(values, np.ascontiguousarray(self.scales[:, 0]), in_features)
        shape, (_, groups, _) = int4_shapes(out, in_features)
        packed = np.empty(shape, np.uint8)
        self.work_on(lambda rows: put(packed, rows, self.nibbles(rows)))
        scales, offsets = (
            by_panel(np.repeat(part.astype(np.float16), self.repeats, axis=1)[:, :groups])
            for part in (self.scales, self.steps_from_zero)
        )
        return Int4Weight(packed, scales, offsets, out, in_features)

    def signed_codes(self, rows: slice) -> Array:
        """Codes of some rows around zero, filled up as int8 has them."""
        codes = self.codes(rows)
        signed = codes if self.zeros is None else (codes.astype(np.int16) - 2 ** (self.bits - 1)).astype(np.int8)
        return np.pad(signed, ((0, 0), (0, -self.shape[1] % STEP)))

    def nibbles(self, rows: slice) -> Array:
        """Codes of some rows, two in a byte as int4 has them."""
        grouped = np.pad(self.codes(rows), ((0, 0), (0, -self.shape[1] % GROUP))).reshape(-1, GROUP)
        half = GROUP // 2
        return (grouped[:, :half] | grouped[:, half:] << 4).reshape(rows.stop - rows.start, -1)

    def work_on(self, work: Callable[[slice], None]) -> None:
        """Do some work for all rows, whole panels of them at a time, on several threads."""
        rows, columns = self.shape
        step = max(1, CHUNK // columns // PANEL) * PANEL
        parts = (slice(start, min(start + step, rows)) for start in range(0, rows, step))
        with ThreadPoolExecutor() as pool:
            list(pool.map(work, parts))

    @property
    def repeats(self) -> int:
        """Groups of 32 in a group of these."""
        return -(-self.group // GROUP)

    def divide(self, stored: Stored) -> dict[str, CodedMatrix]:
        """The weights in a stored tensor that is this matrix, by their names."""
        if stored.is_one:
            return dict.fromkeys(stored.parts, self)

        def cut(part: Array) -> dict[str, Array]:
            if not stored.experts:
                return stored.cut(part)
            return replace(stored, transposed=False).cut(part.reshape(stored.experts, -1, part.shape[1]))

        codes, scales = cut(self.codes(slice(0, self.shape[0]))), cut(self.scales)
        zeros, offsets = ({} if part is None else cut(part) for part in (self.zeros, self.offsets))
        return {
            name: replace(
                self,
                shape=codes[name].shape,
                codes=codes[name].__getitem__,
                scales=scales[name],
                zeros=zeros.get(name),
                offsets=offsets.get(name),
            )
            for name in codes
        }

    def with_columns(self, order: Indices) -> CodedMatrix:
        """The same with its columns in another order; groups that stay together stay groups."""
        groups = order // self.group
        first = groups[:: self.group]
        together = np.array_equal(order, (first[:, None] * self.group + np.arange(self.group)).reshape(-1))
        change = replace(self, codes=lambda rows: self.codes(rows)[:, order])
        if not together:
            return replace(change, group_of=groups)
        zeros, offsets = (None if part is None else part[:, first] for part in (self.zeros, self.offsets))
        return replace(change, scales=self.scales[:, first], zeros=zeros, offsets=offsets)

    def numbers(self, dtype: str) -> Array:
        """The weights (out, in) in float32, bfloat16 or float16, each computed in float32; on several threads."""
        numbers = np.empty(self.shape, DTYPES[dtype])

        def decode(rows: slice) -> None:
            numbers[rows] = cast(self.decode(rows), dtype)

        self.work_on(decode)
        return numbers

    def decode(self, rows: slice) -> Floats:
        """The weights of some rows in float32."""
        codes = self.codes(rows)
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


def put(panels: Array, rows: slice, bytes_: Array) -> None:
    """Lay rows of bytes, whole panels of them, where they belong."""
    panels[rows.start // PANEL : -(-rows.stop // PANEL)] = in_panels(bytes_)


def fits_float16(numbers: Floats) -> bool:
    """Whether float16 holds each of them as it is."""
    with np.errstate(over="ignore"):
        return bool((numbers.astype(np.float16).astype(np.float32) == numbers).all() and np.isfinite(numbers).all())

"""Weights of 8 and 4 bits: how they are made, and what they are worth.

    weight = quantize_int8(matrix)   # float32 (out, in)
    weight.dequantize()              # float32 (out, in), within half a step

This is the reference in numpy; native_engine/quantising.py makes the same with the kernels' threads. Norms, biases and
learned positions stay numbers, in float32; activations are never quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokenglass.model.checkpoint.arrays import Array, to_float32
from tokenglass.model.checkpoint.grids import Floats, Squares, quantize_groups, shares_of
from tokenglass.model.checkpoint.quantised_layout import (
    GROUP,
    PANEL,
    STEP,
    UNIT,
    Calibration,
    Format,
    factors_shape,
    int4_shapes,
    int8_shape,
)
from tokenglass.model.errors import CheckpointError

MOST_FACTOR = 128  # of int8: that of the group with a row's greatest weight
GREATEST = 65504.0  # of float16
CHUNK = 1 << 13  # groups that are worked on at once, so that they stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A matrix (out, in) as int8 values times a float32 scale per row (out,), and a factor of it for 64 elements.

    `values` is int8 (panels, units, 16, 4): rows lie in panels of 16, and unit u of a panel holds elements 4 u ... of
    each of its rows. Rows are filled up with zeros to a multiple of 64 elements, and matrices to whole panels.
    `factors` is uint8 (panels, groups, 16); None: 1 everywhere.
    The parts are numpy arrays; torch modules hold the same as tensors.
    """

    values: Any
    scales: Any
    in_features: int
    factors: Any = None

    def __post_init__(self) -> None:
        shape = int8_shape(self.out_features, self.in_features)
        if self.values.itemsize != 1 or tuple(self.values.shape) != shape:
            raise ValueError("values are int8 (panels, units, 16, 4)")
        if self.scales.itemsize != 4 or self.scales.ndim != 1:
            raise ValueError("scales are float32 (out,)")
        factors, shape = self.factors, factors_shape(self.out_features, self.in_features)
        if factors is not None and (factors.itemsize != 1 or tuple(factors.shape) != shape):
            raise ValueError("factors are uint8 (panels, groups, 16)")

    @property
    def out_features(self) -> int:
        return int(self.scales.shape[0])

    @property
    def parts(self) -> dict[str, Any]:
        """As they are stored: NAME.values, NAME.scales, and NAME.factors where there are some."""
        factors = {} if self.factors is None else {"factors": self.factors}
        return {"values": self.values, "scales": self.scales, **factors}

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / (self.out_features * self.in_features)

    def with_parts(self, convert: Callable[[Any], Any]) -> Int8Weight:
        """The same weight with each part converted: copied elsewhere, or made a tensor."""
        factors = None if self.factors is None else convert(self.factors)
        return Int8Weight(convert(self.values), convert(self.scales), self.in_features, factors)

    def dequantize(self) -> Any:
        """float32 (out, in)."""
        return self.rows(slice(None, self.out_features))

    def rows(self, index: Any) -> Any:
        """float32 (*index, in): only those rows, by a slice from 0 or an array of the parts' own kind."""
        values = float32(rows_of(self.values, index))
        if self.factors is not None:
            factors = float32(groups_of(self.factors, index))
            groups = values.reshape(*factors.shape, STEP) * factors[..., None]
            values = groups.reshape(values.shape)
        return values[..., : self.in_features] * self.scales[index][..., None]


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """A matrix (out, in) in groups of 32 along `in`, each weight its nibble times the group's scale plus its offset.

    `packed` is uint8 (panels, groups * 4, 16, 4), in panels as in int8. Byte j of a row's 16 of a group holds
    element j in its low and element j + 16 in its high nibble. `scales` and `offsets` are float16 (panels, groups, 16).
    The last group may be longer than the rows are, and the last panel have more rows than the matrix.
    """

    packed: Any
    scales: Any
    offsets: Any
    out_features: int
    in_features: int

    def __post_init__(self) -> None:
        packed, grouped = int4_shapes(self.out_features, self.in_features)
        if self.packed.itemsize != 1 or tuple(self.packed.shape) != packed:
            raise ValueError("packed is uint8 (panels, groups * 4, 16, 4)")
        for part in (self.scales, self.offsets):
            if part.itemsize != 2 or tuple(part.shape) != grouped:
                raise ValueError("scales and offsets are float16 (panels, groups, 16)")

    @property
    def groups(self) -> int:
        return int(self.scales.shape[1])

    @property
    def parts(self) -> dict[str, Any]:
        """As they are stored: NAME.packed, NAME.scales, NAME.offsets."""
        return {"packed": self.packed, "scales": self.scales, "offsets": self.offsets}

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / (self.out_features * self.in_features)

    def with_parts(self, convert: Callable[[Any], Any]) -> Int4Weight:
        """The same weight with each part converted: copied elsewhere, or made a tensor."""
        packed, scales, offsets = (convert(part) for part in self.parts.values())
        return Int4Weight(packed, scales, offsets, self.out_features, self.in_features)

    def dequantize(self) -> Any:
        """float32 (out, in)."""
        return self.rows(slice(None, self.out_features))

    def rows(self, index: Any) -> Any:
        """float32 (*index, in): only those rows, by a slice from 0 or an array of the parts' own kind."""
        packed = rows_of(self.packed, index)
        packed = packed.reshape(*packed.shape[:-1], self.groups, GROUP // 2)
        scales, offsets = (float32(groups_of(part, index))[..., None] for part in (self.scales, self.offsets))
        shape = (*packed.shape[:-1], GROUP)
        weights = float32(packed).new_empty(shape) if hasattr(packed, "new_empty") else np.empty(shape, np.float32)
        weights[..., : GROUP // 2] = float32(packed & 15) * scales + offsets
        weights[..., GROUP // 2 :] = float32(packed >> 4) * scales + offsets
        return weights.reshape(*shape[:-2], -1)[..., : self.in_features]


QuantizedWeight = Int8Weight | Int4Weight


def float32(array: Any) -> Any:
    """An array or a tensor in float32."""
    return array.float() if hasattr(array, "float") else array.astype(np.float32)


def rows_of(panels: Any, index: Any) -> Any:
    """The rows of these numbers (*index, 4 * units) out of panels (panels, units, 16, 4)."""
    if isinstance(index, slice):
        return panels.swapaxes(1, 2).reshape(-1, panels.shape[1] * UNIT)[index]
    return panels[index // PANEL, :, index % PANEL].reshape(*index.shape, -1)


def groups_of(panels: Any, index: Any) -> Any:
    """The rows of these numbers (*index, groups) out of panels (panels, groups, 16)."""
    if isinstance(index, slice):
        return panels.swapaxes(1, 2).reshape(-1, panels.shape[1])[index]
    return panels[index // PANEL, :, index % PANEL]


def in_panels(matrix: Array) -> Array:
    """Rows of bytes (out, 4 * units), laid out (panels, units, 16, 4)."""
    padded = np.pad(matrix, ((0, -len(matrix) % PANEL), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, PANEL, matrix.shape[1] // UNIT, UNIT).swapaxes(1, 2))


def by_panel(parts: Array) -> Array:
    """Numbers of groups (out, groups), laid out (panels, groups, 16)."""
    padded = np.pad(parts, ((0, -len(parts) % PANEL), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, PANEL, parts.shape[1]).swapaxes(1, 2))


def quantize(weight: Array, format: Format, squares: Squares | None = None) -> QuantizedWeight:  # noqa: A002  (the word for it everywhere)
    """The matrix (out, in) in int8 or int4, where int4 fits it to the `squares`. Raises CheckpointError."""
    return quantize_int8(weight) if format == "int8" else quantize_int4(weight, squares)


QuantizeMatrix = Callable[[Array, Format, Squares | None], QuantizedWeight]


@dataclass(frozen=True, slots=True)
class Quantizer:
    """The format that a model is to have, and what makes a matrix (out, in) of one: `quantize`, or the kernels.

    `squares` are those of the matrices' inputs, by their names, where a text was read to measure them: `calibration`.
    """

    format: Format
    quantize: QuantizeMatrix = quantize
    squares: Mapping[str, Squares] = field(default_factory=dict)
    calibration: Calibration | None = None


def quantize_int8(weight: Array) -> Int8Weight:
    """The matrix (out, in) with the greatest magnitude of each group of 64 at 127, or a little below.

    Raises CheckpointError where it is not finite.
    """
    weight = finite(weight)
    out, in_features = weight.shape
    groups = np.pad(weight, ((0, 0), (0, -in_features % STEP))).reshape(out, -1, STEP)
    most = np.abs(groups).max(axis=2)
    greatest = most.max(axis=1, keepdims=True)
    scales = greatest / np.float32(127) / np.float32(MOST_FACTOR)
    shares = most / np.where(greatest > 0, greatest, np.float32(1))
    factors = np.maximum(np.ceil(shares * np.float32(MOST_FACTOR)), np.float32(1))
    steps = factors * np.where(scales > 0, scales, np.float32(1))
    values = np.clip(np.rint(groups / steps[..., None]), -127, 127).astype(np.int8).reshape(out, -1)
    return Int8Weight(in_panels(values), scales[:, 0], in_features, by_panel(factors.astype(np.uint8)))


def quantize_int4(weight: Array, squares: Squares | None = None) -> Int4Weight:
    """The matrix (out, in) with, in each group of 32, the grid of the least squared error among a few.

    The grids are the group's span, whole and cut at either end, and the symmetric one that 4-bit files use, so that
    those come back nearly as they were. The best is then fitted to the weights by least squares. With `squares`, an
    error counts by what its column multiplies, as with llama.cpp's importance matrix: the least error is then that of
    the product, as far as inputs are independent. All of the grids are fitted to that.
    Raises CheckpointError where a weight is not finite or beyond float16.
    """
    weight = finite(weight)
    out, in_features = weight.shape
    if np.abs(weight).max() > GREATEST:
        raise beyond_float16()
    grouped = np.pad(weight, ((0, 0), (0, -in_features % GROUP))).reshape(-1, GROUP)
    shares = shares_of(squares, in_features)
    each = None if shares is None else np.tile(shares.reshape(-1, GROUP), (out, 1))
    parts = (slice(start, start + CHUNK) for start in range(0, len(grouped), CHUNK))
    chunks = [quantize_groups(grouped[part], None if each is None else each[part]) for part in parts]
    packed, scales, offsets = (np.concatenate(parts).reshape(out, -1) for parts in zip(*chunks, strict=True))
    return Int4Weight(in_panels(packed), by_panel(scales), by_panel(offsets), out, in_features)


def finite(weight: Array) -> Floats:
    """The matrix in float32. Raises CheckpointError for infinities and NaN."""
    weight = np.ascontiguousarray(to_float32(weight))  # some files store it transposed
    with np.errstate(invalid="ignore", over="ignore"):
        total = weight.sum(dtype=np.float64)
    if not np.isfinite(total):
        raise CheckpointError("a weight is infinite or not a number, which cannot be quantised")
    return weight


def beyond_float16() -> CheckpointError:
    return CheckpointError("a weight is beyond 65,504, which int4's offsets cannot hold; use int8")

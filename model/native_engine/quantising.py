"""Weights of 8 and 4 bits made by the kernels: what checkpoint/quantised.py makes, to the bit, on several threads."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_int64, c_void_p

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import Array, Empty
from tokenglass.model.checkpoint.grids import Squares, shares_of
from tokenglass.model.checkpoint.quantised import (
    GREATEST,
    Int4Weight,
    Int8Weight,
    QuantizedWeight,
    QuantizeMatrix,
    beyond_float16,
    finite,
)
from tokenglass.model.checkpoint.quantised_layout import PANEL, Format, factors_shape, int4_shapes, int8_shape

PANELS = 8  # in a task of a thread


def native_quantize(library: ctypes.CDLL, threads: int, empty: Empty) -> QuantizeMatrix:
    """checkpoint/quantised.py's `quantize`, into room that `empty` makes. It raises CheckpointError as that does."""
    for run, places in ((library.tokenglass_quantize_int8, 3), (library.tokenglass_quantize_int4, 4)):
        run.argtypes = [c_void_p, *[c_int64] * 4, *[c_void_p] * places]
        run.restype = None

    def quantize(
        weight: Array,
        format: Format,  # noqa: A002  (the word for it everywhere)
        squares: Squares | None = None,
    ) -> QuantizedWeight:
        run = library.tokenglass_quantize_int8 if format == "int8" else library.tokenglass_quantize_int4
        rows, columns = weight.shape
        matrix: QuantizedWeight
        if format == "int8":
            values = empty(int8_shape(rows, columns), np.dtype(np.int8))
            factors = empty(factors_shape(rows, columns), np.dtype(np.uint8))
            matrix = Int8Weight(values, empty((rows,), np.dtype(np.float32)), columns, factors)
        else:
            packed, grouped = int4_shapes(rows, columns)
            scales, offsets = (empty(grouped, np.dtype(np.float16)) for _ in range(2))
            matrix = Int4Weight(empty(packed, np.dtype(np.uint8)), scales, offsets, rows, columns)
        shares = shares_of(squares, columns)
        places = [part.ctypes.data for part in matrix.parts.values()]
        if format == "int4":
            places.append(None if shares is None else shares.ctypes.data)

        def quantize_panels(first: int) -> None:
            last = min(first + PANELS, -(-rows // PANEL))
            block: NDArray[np.float32] = finite(weight[first * PANEL : last * PANEL])
            if format == "int4" and np.abs(block).max() > GREATEST:
                raise beyond_float16()
            run(block.ctypes.data, rows, columns, first, last, *places)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(quantize_panels, range(0, -(-rows // PANEL), PANELS)))
        return matrix

    return quantize

"""Single operations of the program that the kernels run, and the memory that they point to."""

from __future__ import annotations

from ctypes import Array as CArray
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import BFLOAT16, dtype_name, to_float32
from tokenglass.model.checkpoint.quantised import Int4Weight, Int8Weight, QuantizedWeight
from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine.structures import Buffer, Code, Kind, Matrix, Norm, Operation

FLOATS = {np.dtype(np.float32): Kind.FLOAT32, BFLOAT16: Kind.BFLOAT16}
Weight = NDArray[Any] | QuantizedWeight


class Operations:
    """Writes single operations, and keeps the arrays that their pointers lead into."""

    def __init__(self) -> None:
        self.kept: list[NDArray[Any]] = []
        self.rows_of_matrices: list[CArray[Matrix]] = []

    def multiply(
        self, source: Buffer, target: Buffer, *matrices: Matrix, norm: Norm | None = None, **fields: Any
    ) -> Operation:
        """target, target + 1, ... = matrices(norm(source))."""
        operation = Operation(**{"kind": Code.MULTIPLY, "source": source, "target": target, **fields})
        operation.parts, operation.matrices = len(matrices), self.row(*matrices)
        if norm is not None:
            operation.norm = norm
        return operation

    def row(self, *matrices: Matrix) -> CArray[Matrix]:
        """Matrices side by side, which live as long as this."""
        row = (Matrix * len(matrices))(*matrices)
        self.rows_of_matrices.append(row)
        return row

    def matrix(
        self, weight: Weight, bias: NDArray[Any] | None = None, squares: NDArray[np.float64] | None = None
    ) -> Matrix:
        """A weight (out, in) and a bias; the squares of what it multiplies are added to `squares` (in,), where given.

        Raises KernelsError.
        """
        parts: tuple[NDArray[Any] | None, ...]
        if isinstance(weight, Int8Weight):
            kind, parts = Kind.INT8, (weight.values, weight.scales, None, weight.factors)
            rows, columns = weight.out_features, weight.in_features
        elif isinstance(weight, Int4Weight):
            kind, parts = Kind.INT4, (weight.packed, weight.scales, weight.offsets, None)
            rows, columns = weight.out_features, weight.in_features
        else:
            if weight.dtype not in FLOATS:
                raise KernelsError(f"they do not know weights of {dtype_name(weight.dtype)}")
            kind, parts = FLOATS[weight.dtype], (weight, None, None, None)
            rows, columns = weight.shape
        bias = None if bias is None else to_float32(bias)
        return Matrix(kind, rows, columns, *map(self.keep, (*parts, bias, squares)))

    def normalise(
        self, norm: Norm, source: Buffer, target: Buffer, *, add: bool = False, stretches: int = 1
    ) -> Operation:
        return Operation(kind=Code.NORMALISE, source=source, target=target, add=add, norm=norm, parts=stretches)

    def keep(self, array: NDArray[Any] | None) -> int | None:
        """The address of an array that lives as long as this."""
        if array is None:
            return None
        array = np.ascontiguousarray(array)
        self.kept.append(array)
        return array.ctypes.data

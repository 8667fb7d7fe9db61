"""The kernels make int8 and int4 as numpy does, to the bit."""

from __future__ import annotations

from typing import Any

import native_parts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_quantisation import FORMATS, matrices

from tokenglass.model.checkpoint.quantised import quantize
from tokenglass.model.errors import CheckpointError
from tokenglass.model.native_engine.quantising import native_quantize


@pytest.mark.parametrize("stored", FORMATS)
@given(matrices, st.floats(-20, 3), st.sampled_from([1, 3]), st.integers(-1, 50))
def test_the_kernels_make_the_same_bits(
    stored: Any, matrix: np.ndarray, exponent: float, threads: int, seed: int
) -> None:
    matrix = matrix * np.float32(2**exponent)
    squares = None if seed < 0 else np.random.default_rng(seed).lognormal(0, 3, matrix.shape[1])
    result = native_quantize(native_parts.compiled(), threads, np.empty)(matrix, stored, squares)
    expected = quantize(matrix, stored, squares)
    for name, part in expected.parts.items():
        assert np.array_equal(result.parts[name], part), name


@pytest.mark.parametrize("stored", FORMATS)
def test_the_kernels_make_the_same_bits_of_large_matrices(stored: Any) -> None:
    rng = np.random.default_rng(1)
    matrix, kernels = rng.standard_normal((300, 1000), dtype=np.float32), native_parts.compiled()
    for squares in (None, rng.lognormal(0, 3, 1000)):
        result, expected = (
            native_quantize(kernels, 2, np.empty)(matrix, stored, squares),
            quantize(matrix, stored, squares),
        )
        assert all(np.array_equal(result.parts[name], part) for name, part in expected.parts.items())
    matrix[290, 7] = np.nan
    with pytest.raises(CheckpointError, match="not a number"):
        native_quantize(kernels, 2, np.empty)(matrix, stored, None)

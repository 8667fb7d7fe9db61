"""Products of int8 and int4 with columns of 16 bits, in words and in planes of bytes, are those of whole numbers:
numpy's int64 is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_parts import BYTES, WORDS, Bench, kept_as, products_of
from numpy.typing import NDArray
from torch import nn

# The flags, and the greatest whole number: a group of words, or a column of bytes, that holds it is counted in ones.
WAYS = [pytest.param(WORDS, 32767, id="words"), pytest.param(BYTES, 127 * 257, id="bytes")]
GROUP = 32
LEVELS = {"int8": (-127, 127), "int4": (0, 15)}  # weights that the quantiser keeps as they are, where a row has both


pytestmark = pytest.mark.skipif(products_of(*WORDS) != "words", reason="what this is compiled for multiplies bytes")


def products(
    kind: str, weights: NDArray[np.int64], columns: NDArray[np.int64], flags: tuple[str, ...] = WORDS
) -> NDArray[np.float32]:
    """What the kernels compute of weights (rows, size) and columns (count, size)."""
    linear = nn.Linear(weights.shape[1], weights.shape[0], bias=False).requires_grad_(False)
    linear.weight.copy_(torch.from_numpy(weights))
    module = kept_as(kind, linear)
    assert np.array_equal(module.weight.dequantize().numpy(), weights)
    bench = Bench()
    return bench.run(torch.from_numpy(columns).float(), bench.head(module), flags=flags).numpy()


@pytest.mark.parametrize(("flags", "greatest"), WAYS)
@pytest.mark.parametrize("kind", list(LEVELS))
@settings(max_examples=40)
@given(
    rows=st.integers(1, 40),
    groups=st.integers(1, 5),
    short=st.integers(0, GROUP - 3),
    count=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_whole_numbers_have_exact_products(
    kind: str, flags: tuple[str, ...], greatest: int, rows: int, groups: int, short: int, count: int, seed: int
) -> None:
    """Small enough for float32 to hold every sum: then nothing is rounded anywhere."""
    random, (low, high) = np.random.default_rng(seed), LEVELS[kind]
    size = groups * GROUP - short
    weights = random.integers(max(low, -3), 4, (rows, size))
    weights[:, ::GROUP], weights[:, 1::GROUP] = low, high
    columns = random.integers(-2000, 2001, (count, size))
    columns[:, ::GROUP], columns[:, 1::GROUP], columns[:, 2::GROUP] = 1, -2, greatest
    assert np.array_equal(products(kind, weights, columns, flags), columns @ weights.T)


@pytest.mark.parametrize(("flags", "greatest"), WAYS)
@pytest.mark.parametrize("kind", list(LEVELS))
@pytest.mark.parametrize("sign", [1, -1])
def test_the_greatest_numbers_and_weights_fit_their_sums(
    kind: str, sign: int, flags: tuple[str, ...], greatest: int
) -> None:
    low, high = LEVELS[kind]
    weights = np.full((16, GROUP), high)
    weights[:, 0] = low
    columns = np.full((4, GROUP), sign * greatest)
    columns[:, 0] = 0
    expected = (columns @ weights.T).astype(np.float32)
    assert np.array_equal(products(kind, weights, columns, flags), expected)
    assert abs(int((columns @ weights.T)[0, 0])) == 31 * high * greatest


@pytest.mark.parametrize("kind", list(LEVELS))
def test_a_small_group_beside_a_great_one_keeps_its_digits(kind: str) -> None:
    """Each 64 numbers beside int8, and each 32 beside int4, have a step of their own: 3 is no less exact beside a
    thousand million."""
    low, high = LEVELS[kind]
    size = 64 if kind == "int8" else GROUP
    weights = np.full((16, 2 * size), low)
    weights[:, ::3], weights[:, 1], weights[:, size + 1] = high, 0, 5
    columns = np.zeros((1, 2 * size), np.int64)
    columns[0, 1], columns[0, size + 1] = 10**9, 3
    np.testing.assert_allclose(products(kind, weights, columns), columns @ weights.T, rtol=1e-6)

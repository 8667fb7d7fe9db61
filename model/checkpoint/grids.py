"""The grids of int4: for each group of 32 weights the scale and offset whose 16 levels are nearest to them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.quantised_layout import GROUP

Floats = NDArray[np.float32]
Squares = NDArray[np.float64]  # (in,): those of what a matrix multiplies, summed over the positions of a text
Grids = tuple[Floats, Floats, Floats]  # squared error, scale and offset of each group

LEVELS = 15  # steps of a nibble
LEAST_SCALE = 2.0**-24  # of float16; so that a group of one value divides by no zero
LEAST_SHARE = 1 / 64  # of a column: another text may need it
FITS = 2  # of a grid to weights whose columns count unequally
# Where int4's grid may begin and end, in shares of the group's span beyond its least and greatest weight.
GRIDS = ((0.0, 0.0), (0.04, -0.04), (0.05, 0.0), (0.0, -0.05))


def shares_of(squares: Squares | None, in_features: int) -> Floats | None:
    """How much the error in each column counts (in,), filled up to whole groups, and 1 on average in each.

    None: nothing was measured, and all count alike, as do the columns of a group that only zeros were multiplied by.
    """
    if squares is None:
        return None
    grouped = np.pad(squares, (0, -in_features % GROUP)).reshape(-1, GROUP)
    mean = grouped.mean(axis=1, keepdims=True)
    shares = np.where(mean > 0, grouped / np.where(mean > 0, mean, 1), 1)
    return (shares * (1 - LEAST_SHARE) + LEAST_SHARE).astype(np.float32).reshape(-1)


@np.errstate(over="ignore", invalid="ignore")  # what is beyond float16 errs without limit, and is not taken
def quantize_groups(weights: Floats, shares: Floats | None) -> tuple[Array, Array, Array]:
    """Groups (n, 32) of float32, and their columns' shares, to packed nibbles (n, 16), scales and offsets (n,)."""
    least, greatest = weights.min(axis=1), weights.max(axis=1)
    span = greatest - least
    # The symmetric grid has the weight of greatest magnitude at -8 or 8 and zero on it.
    magnitude = np.maximum(-least, greatest)
    symmetric = np.where(greatest > -least, np.float32(-7 / 8), np.float32(-1)) * magnitude
    beginnings = [
        ((span + np.float32(end - begin) * span) / np.float32(LEVELS), least + np.float32(begin) * span)
        for begin, end in GRIDS
    ]
    beginnings.append((magnitude / np.float32(8), symmetric))
    alike = np.ones_like(weights)
    grids = [measured(weights, alike, *beginning) for beginning in beginnings]
    best = reduce(better, grids)
    best = better(best, fitted(weights, alike, best))
    if shares is not None:
        fits = (fits_of(weights, shares, grid) for grid in [*grids, best])
        best = reduce(better, chain.from_iterable(fits))
    _, scales, offsets = best
    nibbles = encode(weights, scales, offsets).astype(np.uint8)
    half = GROUP // 2
    return nibbles[:, :half] | nibbles[:, half:] << 4, scales.astype(np.float16), offsets.astype(np.float16)


def measured(weights: Floats, shares: Floats, scales: Floats, offsets: Floats) -> Grids:
    """Grids with scales and offsets as float16 holds them."""
    scales = np.maximum(scales, np.float32(LEAST_SCALE)).astype(np.float16).astype(np.float32)
    offsets = offsets.astype(np.float16).astype(np.float32)
    steps = in_steps(weights, scales, offsets)
    wrong = np.clip(np.rint(steps), 0, LEVELS) - steps
    return sum_halves(wrong * wrong * shares) * scales * scales, scales, offsets


def better(best: Grids, other: Grids) -> Grids:
    """Of each group the grid that errs less."""
    less = other[0] < best[0]
    errors, scales, offsets = (np.where(less, new, old) for new, old in zip(other, best, strict=True))
    return errors, scales, offsets


def fits_of(weights: Floats, shares: Floats, grids: Grids) -> Iterator[Grids]:
    """A grid, and those that are fitted to the weights one after another from it on."""
    grids = measured(weights, shares, *grids[1:])
    yield grids
    for _ in range(FITS):
        grids = fitted(weights, shares, grids)
        yield grids


def in_steps(weights: Floats, scales: Floats, offsets: Floats) -> Floats:
    """Weights (n, 32) as places on these grids, from 0 to 15 where they lie within."""
    return (weights - offsets[:, None]) * (np.float32(1) / scales)[:, None]


def encode(weights: Floats, scales: Floats, offsets: Floats) -> Floats:
    """Numbers (n, 32) from 0 to 15 on these grids, in float32."""
    return np.clip(np.rint(in_steps(weights, scales, offsets)), 0, LEVELS)


def fitted(weights: Floats, shares: Floats, grids: Grids) -> Grids:
    """The scales and offsets that bring these grids' levels nearest to the weights: weighted least squares."""
    nibbles = encode(weights, *grids[1:])
    mean, mean_weight = (sum_halves(part * shares) / np.float32(GROUP) for part in (nibbles, weights))
    centred = nibbles - mean[:, None]
    spread: Floats = np.maximum(sum_halves(centred * centred * shares), np.float32(LEAST_SCALE))
    scales: Floats = sum_halves(centred * weights * shares) / spread
    return measured(weights, shares, scales, mean_weight - scales * mean)


def sum_halves(groups: Floats) -> Floats:
    """Sums of groups (n, 32), the upper half added to the lower until one is left: an order that kernels can keep."""
    while groups.shape[1] > 1:
        half = groups.shape[1] // 2
        groups = groups[:, :half] + groups[:, half:]
    return groups[:, 0]

"""Rotary positions (Su et al. 2021, arXiv 2104.09864) and their scalings for longer contexts, in numpy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.config.rope_config import Dynamic, Linear, Llama3, LongRope, Proportional, Rope, Yarn

Floats = NDArray[np.float32]


def rotary_table(rope: Rope, positions: int, planned_length: int) -> tuple[Floats, Floats]:
    """Cosines and sines (positions, dim/2) of the positions from 0 on, for a run of `planned_length` positions."""
    frequencies, factor = rotary_frequencies(rope, planned_length)
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    cosines, sines = np.cos(angles), np.sin(angles)
    return (cosines, sines) if factor == 1 else (cosines * np.float32(factor), sines * np.float32(factor))


def rotary_frequencies(rope: Rope, planned_length: int) -> tuple[Floats, float]:
    """Radians per position (dim/2,) and the factor on cosines and sines, for a run of `planned_length` positions."""
    exponents = np.arange(0, rope.dim, 2, dtype=np.float32) / np.float32(rope.dim)
    frequencies = inverse_powers(rope.theta, exponents)
    match rope.scaling:
        case Dynamic(factor, trained):
            stretch = factor * rope.regime(planned_length) / trained - (factor - 1)
            frequencies = inverse_powers(rope.theta * stretch ** (rope.dim / (rope.dim - 2)), exponents)
        case LongRope():
            long = rope.regime(planned_length)
            factors = np.array(rope.scaling.long_factors if long else rope.scaling.short_factors, np.float32)
            return inverse_powers(rope.theta, exponents, factors), rope.scaling.attention_factor
        case Yarn():
            return yarn_frequencies(frequencies, rope, rope.scaling), rope.scaling.attention_factor
        case Linear(factor):
            frequencies = frequencies / np.float32(factor)
        case Proportional(pairs, factor):
            turns = np.arange(len(frequencies)) < pairs
            frequencies = np.where(turns, frequencies / np.float32(factor), np.float32(0))
        case Llama3():
            frequencies = llama3_frequencies(frequencies, rope.scaling)
    return frequencies, 1.0


def inverse_powers(theta: float, exponents: Floats, factors: Floats | float = 1.0) -> Floats:
    """1 / (factors * theta ** exponents), in float32 throughout, as the models were trained with."""
    powers = np.float32(theta) ** exponents
    return (np.float32(1) / (np.asarray(factors, np.float32) * powers)).astype(np.float32)


def llama3_frequencies(frequencies: Floats, scaling: Llama3) -> Floats:
    """Frequencies (dim/2,), each kept, divided, or between, by how often it turns within the trained positions."""
    turns = np.float32(scaling.trained_positions) * frequencies / np.float32(2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share = (turns - np.float32(low)) / np.float32(high - low)
    return blend(frequencies / np.float32(scaling.factor), frequencies, share)


def yarn_frequencies(frequencies: Floats, rope: Rope, scaling: Yarn) -> Floats:
    """Frequencies (dim/2,): kept where they turn beta_fast times or more within the trained positions, divided by
    the factor where they turn beta_slow times or less, a ramp over the pairs between."""

    def pair_that_turns(times: float) -> float:
        return rope.dim * math.log(scaling.trained_positions / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.whole_bounds:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    pairs = np.arange(len(frequencies), dtype=np.float32)
    divided = (pairs - np.float32(low)) / np.float32(high - low or 0.001)
    return blend(frequencies, frequencies / np.float32(scaling.factor), divided)


def blend(first: Floats, second: Floats, share: Floats) -> Floats:
    """`share` of the second, from 0 to 1, the rest of the first."""
    share = np.clip(share, np.float32(0), np.float32(1))
    return first * (1 - share) + second * share

"""Rotary positions (Su et al. 2021, arXiv 2104.09864) and their scalings for longer contexts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tokenglass.model.config.rope_config import Dynamic, Linear, Llama3, LongRope, Rope, Yarn


def rotary_table(rope: Rope, positions: Tensor, planned_length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (batch, 1, length, rope.dim) of positions (batch, length)."""
    frequencies, factor = rotary_frequencies(rope, planned_length, positions.device)
    angles = positions[:, None, :, None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = angles.cos(), angles.sin()
    if factor != 1:
        cos, sin = cos * factor, sin * factor
    return cos.to(dtype), sin.to(dtype)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + dim/2) of x (batch, heads, length, head_dim) by its position's angle; pass the rest."""
    cos, sin = rotary
    dim = cos.shape[-1]
    if dim < x.shape[-1]:
        return torch.cat((rotate(x[..., :dim], rotary), x[..., dim:]), dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def rotary_frequencies(rope: Rope, planned_length: int, device: torch.device) -> tuple[Tensor, float]:
    """Radians per position (dim/2,) and the factor on cosines and sines, for a run of `planned_length` positions."""
    exponents = torch.arange(0, rope.dim, 2, device=device).float() / rope.dim
    match rope.scaling:
        case None:
            return 1.0 / rope.theta**exponents, 1.0
        case Linear(factor):
            return 1.0 / rope.theta**exponents / factor, 1.0
        case Dynamic(factor, trained):
            stretch = factor * rope.regime(planned_length) / trained - (factor - 1)
            return 1.0 / (rope.theta * stretch ** (rope.dim / (rope.dim - 2))) ** exponents, 1.0
        case LongRope():
            long = rope.regime(planned_length)
            factors = torch.tensor(rope.scaling.long_factors if long else rope.scaling.short_factors, device=device)
            return 1.0 / (factors * rope.theta**exponents), rope.scaling.attention_factor
        case Llama3():
            return llama3_frequencies(1.0 / rope.theta**exponents, rope.scaling), 1.0
        case Yarn():
            return yarn_frequencies(1.0 / rope.theta**exponents, rope, rope.scaling), rope.scaling.attention_factor


def llama3_frequencies(frequencies: Tensor, scaling: Llama3) -> Tensor:
    """Frequencies (dim/2,), each kept, divided, or between, by how often it turns within the trained positions."""
    turns = scaling.trained_positions * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return blend(frequencies / scaling.factor, frequencies, kept.clamp(0, 1))


def yarn_frequencies(frequencies: Tensor, rope: Rope, scaling: Yarn) -> Tensor:
    """Frequencies (dim/2,): kept where they turn beta_fast times or more within the trained positions, divided by
    the factor where they turn beta_slow times or less, a ramp over the pairs between."""

    def pair_that_turns(times: float) -> float:
        return rope.dim * math.log(scaling.trained_positions / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.whole_bounds:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    pairs = torch.arange(len(frequencies), device=frequencies.device).float()
    divided = ((pairs - low) / (high - low or 0.001)).clamp(0, 1)
    return blend(frequencies, frequencies / scaling.factor, divided)


def blend(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """`share` of the second, the rest of the first."""
    return first * (1 - share) + second * share

"""Rotary positions on tensors; engine/rotary.py has the frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.rotary import rotary_frequencies


@dataclass(frozen=True, slots=True)
class Frequencies:
    """Radians per position (dim/2,) on a device, and the factor on cosines and sines."""

    radians: Tensor
    factor: float

    @staticmethod
    def of(rope: Rope, planned_length: int, device: torch.device) -> Frequencies:
        radians, factor = rotary_frequencies(rope, planned_length)
        return Frequencies(torch.from_numpy(radians).to(device), factor)

    def cosines(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines (batch, 1, length, dim) of positions (batch, length)."""
        angles = positions[:, None, :, None].float() * self.radians
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        if self.factor != 1:
            cos, sin = cos * self.factor, sin * self.factor
        return cos.to(dtype), sin.to(dtype)


def rotary_cosines(rope: Rope, positions: Tensor, planned_length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (batch, 1, length, rope.dim) of positions (batch, length)."""
    return Frequencies.of(rope, planned_length, positions.device).cosines(positions, dtype)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + dim/2) of x (batch, heads, length, head_dim) by its position's angle; pass the rest."""
    cos, sin = rotary
    dim = cos.shape[-1]
    if dim < x.shape[-1]:
        return torch.cat((rotate(x[..., :dim], rotary), x[..., dim:]), dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin

"""Gated DeltaNet: linear attention whose state is a matrix for each head. See mixers.GatedDeltaNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenglass.model.checkpoint import mixers
from tokenglass.model.torch_engine.modules import Norm, linear

if TYPE_CHECKING:
    from tokenglass.model.torch_engine.views import PassView

LEAST_SQUARE = 1e-6  # added to the square of a query's or key's length


class GatedDeltaNet(nn.Module):
    """The recurrence as it is defined, position by position, in float32."""

    def __init__(self, spec: mixers.GatedDeltaNet):
        super().__init__()
        self.sizes = spec.sizes
        channels, taps = spec.kernel.channels, spec.kernel.taps
        self.in_proj_qkv, self.in_proj_z = linear(spec.mixed), linear(spec.gate)
        self.in_proj_b, self.in_proj_a = linear(spec.strength), linear(spec.decay)
        self.A_log, self.dt_bias = (
            nn.Parameter(torch.zeros(spec.rates.heads)),
            nn.Parameter(torch.ones(spec.rates.heads)),
        )
        self.conv1d = nn.Conv1d(channels, channels, taps, groups=channels, bias=False)
        self.norm = Norm(spec.norm)
        self.out_proj = linear(spec.output)

    def forward(self, x: Tensor, layer: int, view: PassView) -> Tensor:
        folded = view.recur(layer, (self.in_proj_qkv(x), self.in_proj_b(x), self.in_proj_a(x)), self)
        gate = self.in_proj_z(x).view(folded.shape)
        gated = self.norm(folded.to(x.dtype)) * F.silu(gate.float())
        return self.out_proj(gated.to(x.dtype).flatten(2))

    def fold(self, inputs: Sequence[Tensor], state: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the matrices give at each new position (batch, length, value heads, value_dim), and the state behind the
        last (batch, size), of `inputs` (batch, length, ...) and the state before them."""
        (mixed, strength, decay), sizes = inputs, self.sizes
        if state is None:
            state = torch.zeros(len(mixed), sizes.state_size, device=mixed.device)
        cut = (sizes.taps - 1) * sizes.channels
        before, matrix = state[:, :cut].view(-1, sizes.taps - 1, sizes.channels), state[:, cut:]
        whole = torch.cat((before.to(mixed.dtype), mixed), 1)
        matrix, output = self.step_through(
            matrix.view(-1, sizes.value_heads, sizes.key_dim, sizes.value_dim),
            F.silu(self.conv1d(whole.transpose(1, 2))).transpose(1, 2).float(),
            torch.sigmoid(strength).float(),
            torch.exp(-self.A_log.float().exp() * F.softplus(decay.float() + self.dt_bias)),
        )
        last = whole[:, whole.shape[1] - (sizes.taps - 1) :].float()
        return output, torch.cat((last.flatten(1), matrix.flatten(1)), 1)

    def step_through(self, matrix: Tensor, mixed: Tensor, beta: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
        """The matrices (batch, heads, key_dim, value_dim) behind the last position, and what they give at each."""
        sizes, keys = self.sizes, self.sizes.key_heads * self.sizes.key_dim
        query, key = (
            unit(by_head(part, sizes.key_heads)).repeat_interleave(sizes.value_heads // sizes.key_heads, 2)
            for part in (mixed[..., :keys], mixed[..., keys : 2 * keys])
        )
        query, value = query * sizes.key_dim**-0.5, by_head(mixed[..., 2 * keys :], sizes.value_heads)
        output = torch.empty_like(value)
        for at in range(mixed.shape[1]):
            matrix, at_key = matrix * decay[:, at, :, None, None], key[:, at, :, :, None]
            delta = beta[:, at, :, None] * (value[:, at] - (matrix * at_key).sum(2))
            matrix = matrix + at_key * delta[:, :, None]
            output[:, at] = (matrix * query[:, at, :, :, None]).sum(2)
        return matrix, output


def by_head(x: Tensor, heads: int) -> Tensor:
    """(batch, length, heads * size) to (batch, length, heads, size)."""
    return x.reshape(*x.shape[:2], heads, -1)


def unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + LEAST_SQUARE)

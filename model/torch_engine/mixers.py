"""What lets positions see others; see model/checkpoint/mixers.py. The third kind is in delta.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenglass.model.checkpoint import mixers
from tokenglass.model.torch_engine.attention import AttentionInputs
from tokenglass.model.torch_engine.modules import HeadNorms, Norm, linear, qk_norm
from tokenglass.model.torch_engine.rope import rotate
from tokenglass.model.torch_engine.views import PassView


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245), by the layer's kind with rotary positions."""

    def __init__(self, spec: mixers.Attention):
        super().__init__()
        self.spec = spec
        self.q_proj = linear(spec.query)
        self.k_proj = None if spec.key is None else linear(spec.key)
        self.v_proj = None if spec.value is None else linear(spec.value)
        self.o_proj = linear(spec.output)
        self.sinks = None if spec.sinks is None else nn.Parameter(torch.zeros(spec.sinks.size))
        if spec.gate is not None:
            self.gate_proj = linear(spec.gate)
        self.q_norm, self.k_norm, self.v_norm = map(qk_norm, (spec.query_norm, spec.key_norm, spec.value_norm))

    def forward(self, x: Tensor, layer: int, view: PassView) -> Tensor:
        inputs = AttentionInputs(layer, self.spec, self.queries(x, view), self.keys_values(x, view), self.sinks)
        mixed = view.attend(inputs).transpose(1, 2)
        return self.o_proj((mixed if self.spec.gate is None else mixed * self.opening(x)).flatten(2))

    def opening(self, x: Tensor) -> Tensor:
        """How far the output gate lets through what each head gives (..., heads, head_dim or 1), of x (..., hidden)."""
        return torch.sigmoid(self.gate_proj(x)).view(*x.shape[:-1], self.spec.num_heads, -1)

    def queries(self, x: Tensor, view: PassView) -> Tensor:
        """What is compared with keys, (batch, heads, length, head_dim), of x (batch, length, hidden)."""
        query = self.normalise_and_rotate(self.q_proj(x), self.q_norm, view)
        growth = self.spec.growth
        if growth is None:
            return query
        times = 1 + growth.beta * torch.log1p(torch.floor(view.positions / growth.trained_positions))
        return query * times[:, None, :, None].to(query.dtype)

    def keys_values(self, x: Tensor, view: PassView) -> tuple[Tensor, Tensor] | None:
        """What queries are compared with, and what they get, both (batch, kv_heads, length, head_dim); None where
        another layer's are read."""
        if self.k_proj is None:
            return None
        key = self.k_proj(x)
        value = self.heads(key if self.v_proj is None else self.v_proj(x))
        return self.normalise_and_rotate(key, self.k_norm, view), value if self.v_norm is None else self.v_norm(value)

    def normalise_and_rotate(self, x: Tensor, norm: Norm | HeadNorms | None, view: PassView) -> Tensor:
        """Projected queries or keys, normalised and rotated, in the order that the family has."""
        spec = self.spec
        if norm is not None and not spec.rotate_first:
            x = normalise(x, norm)
        x = self.heads(x)
        if spec.rope is not None:
            x = rotate(x, view.rotary(spec.rope, x.dtype))
        return norm(x) if norm is not None and spec.rotate_first else x

    def heads(self, x: Tensor) -> Tensor:
        """(batch, length, heads * head_dim) to (batch, heads, length, head_dim)."""
        return x.view(*x.shape[:2], -1, self.spec.head_dim).transpose(1, 2)


class ShortConvolution(nn.Module):
    """A gated short convolution; see mixers.ShortConvolution."""

    def __init__(self, spec: mixers.ShortConvolution):
        super().__init__()
        kernel = spec.kernel
        self.before_proj, self.after_proj, self.middle_proj = map(linear, spec.inputs)
        self.conv = nn.Conv1d(kernel.channels, kernel.channels, kernel.taps, groups=kernel.channels, bias=kernel.bias)
        self.out_proj = linear(spec.output)

    def forward(self, x: Tensor, layer: int, view: PassView) -> Tensor:
        convolved = view.convolve(layer, self.before_proj(x) * self.middle_proj(x), self.conv)
        return self.out_proj(self.after_proj(x) * convolved)


def normalise(x: Tensor, norm: Norm | HeadNorms) -> Tensor:
    """A norm over each stretch of its own size of x (batch, length, heads * head_dim)."""
    return norm(x.view(*x.shape[:2], -1, norm.size)).view(x.shape)

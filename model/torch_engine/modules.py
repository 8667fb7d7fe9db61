"""Modules that several kinds of layers are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenglass.model.checkpoint import parts


class Norm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467), computed in float32, or LayerNorm
    (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(self, spec: parts.Normalisation):
        super().__init__()
        self.kind, self.eps, self.size = spec.kind, spec.eps, spec.size
        neutral = torch.zeros(self.size) if self.kind == "rms_plus_one" else torch.ones(self.size)
        self.weight = nn.Parameter(neutral) if spec.weight else None
        self.bias = nn.Parameter(torch.zeros(self.size)) if spec.bias else None

    def forward(self, x: Tensor) -> Tensor:
        shape = (self.size,)
        if self.kind == "layer":
            return F.layer_norm(x, shape, self.weight, self.bias, self.eps)
        if self.weight is None:
            return F.rms_norm(x.float(), shape, eps=self.eps).to(x.dtype)
        if self.kind == "rms":
            return self.weight * F.rms_norm(x.float(), shape, eps=self.eps).to(x.dtype)
        weight = self.weight.float() + (self.kind == "rms_plus_one")
        return F.rms_norm(x.float(), shape, weight, self.eps).to(x.dtype)


class HeadNorms(nn.Module):
    """A norm for each head of x (..., heads * head_dim)."""

    def __init__(self, spec: parts.HeadNorms):
        super().__init__()
        self.size = len(spec.heads) * spec.size
        self.norms = nn.ModuleList(Norm(head) for head in spec.heads)

    def forward(self, x: Tensor) -> Tensor:
        heads = x.chunk(len(self.norms), -1)
        return torch.cat([norm(head) for norm, head in zip(self.norms, heads, strict=True)], -1)


def qk_norm(spec: parts.Normalisation | parts.HeadNorms | None) -> Norm | HeadNorms | None:
    if spec is None:
        return None
    return HeadNorms(spec) if isinstance(spec, parts.HeadNorms) else Norm(spec)


def linear(spec: parts.Projection) -> nn.Linear:
    return nn.Linear(spec.in_features, spec.out_features, bias=spec.bias)

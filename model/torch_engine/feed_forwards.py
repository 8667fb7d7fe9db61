"""What each position of a layer computes for itself; see model/checkpoint/feed_forwards.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenglass.model.checkpoint import feed_forwards
from tokenglass.model.torch_engine.modules import Norm, linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class Xielu(nn.Module):
    """A learned activation; see parts.Xielu."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha_p, self.alpha_n = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        above = F.softplus(self.alpha_p) * x.square()
        below = (0.5 + F.softplus(self.alpha_n)) * (torch.expm1(x.clamp(max=0)) - x)
        return torch.where(x > 0, above, below) + 0.5 * x


class MLP(nn.Module):
    """Feed-forward, gated (SwiGLU and its kin, Shazeer 2020, arXiv 2002.05202) or plain."""

    def __init__(self, spec: feed_forwards.FeedForward):
        super().__init__()
        self.act_fn = ACTIVATIONS[spec.activation] if spec.learned is None else Xielu()
        self.gated, self.swiglu = spec.gate is not None, spec.swiglu
        if spec.gate is not None:
            self.gate_proj = linear(spec.gate)
        self.up_proj = linear(spec.up)
        self.down_proj = linear(spec.down)

    @property
    def bias(self) -> Tensor | None:
        """What it gives beside anything else."""
        bias: Tensor | None = self.down_proj.bias
        return bias

    def forward(self, x: Tensor, stream: Tensor | None = None) -> Tensor:  # noqa: ARG002  (of those with experts)
        if self.swiglu is not None:
            limit, gate = self.swiglu.limit, self.gate_proj(x).clamp(max=self.swiglu.limit)
            up = self.up_proj(x).clamp(-limit, limit)
            return self.down_proj((up + 1) * gate * torch.sigmoid(gate * self.swiglu.alpha))
        if self.gated:
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return self.down_proj(self.act_fn(self.up_proj(x)))


class Experts(nn.Module):
    """A mixture of experts: each is computed for the positions that chose it; see feed_forwards.Experts."""

    bias = None  # no family's experts have one

    def __init__(self, spec: feed_forwards.Experts):
        super().__init__()
        self.mixture = spec.mixture
        self.taken: tuple[Tensor, Tensor] | None = None  # experts and probabilities of the last pass
        self.gate = linear(spec.router)
        if spec.choice_bias is not None:
            self.expert_bias = nn.Parameter(torch.zeros(spec.choice_bias.size))
        self.reads_stream = spec.router_input is not None
        if (router_input := spec.router_input) is not None:
            self.router_norm, self.factor = Norm(router_input.norm), router_input.factor
            self.scale = nn.Parameter(torch.ones(router_input.scale.size))
        if spec.expert_scale is not None:
            self.per_expert_scale = nn.Parameter(torch.ones(spec.expert_scale.size))
        self.experts = nn.ModuleList(MLP(expert) for expert in spec.experts)
        if spec.shared is not None:
            self.shared_expert = MLP(spec.shared)
        if spec.shared_router is not None:
            self.shared_expert_gate = linear(spec.shared_router)

    def forward(self, x: Tensor, stream: Tensor) -> Tensor:
        """`stream` is x before its norm, which some routers read by another one."""
        flat = x.flatten(0, -2)
        weights, chosen = self.route(self.router_input(stream.flatten(0, -2)) if self.reads_stream else flat)
        mixed = torch.zeros_like(flat)
        for number in sorted(set(chosen.flatten().tolist())):
            rows, place = torch.where(chosen == number)
            mixed.index_add_(0, rows, self.experts[number](flat[rows]) * weights[rows, place, None].to(x.dtype))
        if hasattr(self, "shared_expert"):
            shared = self.shared_expert(flat)
            gated = hasattr(self, "shared_expert_gate")
            mixed = mixed + (torch.sigmoid(self.shared_expert_gate(flat)) * shared if gated else shared)
        return mixed.view(x.shape)

    def router_input(self, x: Tensor) -> Tensor:
        normed: Tensor = self.router_norm(x)
        return normed * self.scale * self.factor

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weights and the numbers of the experts that each position of x (positions, hidden) takes, both
        (positions, chosen), the first choice first."""
        mixture, logits = self.mixture, self.gate(x.to(self.gate.weight.dtype)).float()
        probs = logits.sigmoid() if mixture.sigmoid else logits.softmax(-1)
        chosen = (probs + self.expert_bias if mixture.choice_bias else probs).topk(mixture.chosen, dim=-1).indices
        weights = probs.gather(-1, chosen)
        self.taken = chosen, weights
        if mixture.renormalise:
            weights = weights / (weights.sum(-1, keepdim=True) + mixture.sum_eps)
        if hasattr(self, "per_expert_scale"):
            weights = weights * self.per_expert_scale[chosen]
        return weights * mixture.scale, chosen


class DenseAndExperts(MLP):
    """A feed-forward beside experts; see feed_forwards.DenseAndExperts."""

    bias = None  # no family's has one

    def __init__(self, spec: feed_forwards.DenseAndExperts):
        super().__init__(spec.dense)
        self.routed = Experts(spec.routed)
        self.after_dense, self.before_experts = Norm(spec.after_dense), Norm(spec.before_experts)
        self.after_experts = Norm(spec.after_experts)

    def forward(self, x: Tensor, stream: Tensor | None = None) -> Tensor:
        assert stream is not None, "its experts have a norm of their own"
        dense: Tensor = self.after_dense(super().forward(x))
        return dense + self.after_experts(self.routed(self.before_experts(stream), stream))


def mlp_of(spec: feed_forwards.FeedForward | feed_forwards.Experts | feed_forwards.DenseAndExperts) -> MLP | Experts:
    """The module of what a layer computes of each position."""
    if isinstance(spec, feed_forwards.DenseAndExperts):
        return DenseAndExperts(spec)
    return Experts(spec) if isinstance(spec, feed_forwards.Experts) else MLP(spec)

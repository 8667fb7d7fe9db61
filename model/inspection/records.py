"""What inspection finds out about one choice. No torch here: numbers, text and bytes only.

Logprobs are raw (natural logarithm); divergences are in bits; attributions are in logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["embedding", "attention", "mlp", "bias", "rounding"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token and the bytes it stands for."""

    token_id: int
    piece: bytes


@dataclass(frozen=True, slots=True)
class LayerFlow:
    """The residual stream at the last position after one layer; layer 0 is the embedding.

    The logit lens (nostalgebraist 2020) reads it: final norm, then the head, as if no layers followed.
    """

    layer: int
    norm: float  # L2 norm of the residual stream
    attention_norm: float | None  # L2 norm of what attention added; None for the embedding
    mlp_norm: float | None
    cosine: float | None  # with the residual stream one layer before
    top: Token  # the lens' most probable token
    top_prob: float
    prob: float  # of the chosen token
    rank: int  # of the chosen token, 1 is the most probable
    kl_bits: float  # of the final distribution from the lens'


@dataclass(frozen=True, slots=True)
class Component:
    """One term of the exact split of logit(chosen) - logit(runner-up)."""

    name: str
    kind: Kind
    layer: int | None
    logit: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What the choice would be with one earlier position hidden."""

    kl_bits: float  # of the distribution as it is from the one without the position
    logprob_change: float  # of the chosen token: below 0 where hiding it makes the token less probable


@dataclass(frozen=True, slots=True)
class PositionFlow:
    """One position that the choice could look at.

    `attribution` is what attention or a convolution carried from it to the last position, in logits, per layer.
    `weight` is the attention weight on it, mean over the heads of each layer that has attention: a diagnostic, not an
    explanation. `direct` hides it from the last position alone, `total` from all that follow it; both are None for
    the last position itself.
    """

    position: int
    token: Token
    attribution: tuple[float, ...]
    weight: tuple[float, ...]
    direct: Effect | None = None
    total: Effect | None = None

    @property
    def logit(self) -> float:
        return sum(self.attribution)

    @property
    def mean_weight(self) -> float:
        return sum(self.weight) / len(self.weight)


@dataclass(frozen=True, slots=True)
class Flow:
    """How the positions and the layers before a choice made it. `difference` is logit(chosen) - logit(runner-up),
    before a final soft cap where the model has one (`capped`); the runner-up is the most probable other token."""

    position: int  # of the chosen token
    chosen: Token
    logprob: float
    rank: int
    entropy: float  # bits
    runner_up: Token
    runner_up_logprob: float
    difference: float
    capped: bool
    layers: tuple[LayerFlow, ...]
    components: tuple[Component, ...]
    positions: tuple[PositionFlow, ...]

    @property
    def commit_depth(self) -> int:
        """The first layer from which on the lens' top token is the final one."""
        depth = len(self.layers) - 1
        while depth > 0 and self.layers[depth - 1].top.token_id == self.layers[-1].top.token_id:
            depth -= 1
        return depth

    @property
    def sum_of_components(self) -> float:
        return sum(component.logit for component in self.components)

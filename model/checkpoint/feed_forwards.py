"""What each position of a layer computes for itself: a feed-forward, or a mixture of experts."""

from __future__ import annotations

from dataclasses import dataclass

from tokenglass.model.checkpoint.parts import Normalisation, Projection, Vector, Xielu, norm_of
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.mixture import ClampedSwiGlu, Mixture


@dataclass(frozen=True, slots=True)
class FeedForward:
    """down(activation(gate(x)) * up(x)), or without a gate down(activation(up(x)))."""

    gate: Projection | None
    up: Projection
    down: Projection
    activation: str
    learned: Xielu | None  # the activation's own weights
    swiglu: ClampedSwiGlu | None  # in place of the activation

    @property
    def inputs(self) -> tuple[Projection, ...]:
        """The matrices that read the same x, side by side."""
        return (self.up,) if self.gate is None else (self.gate, self.up)

    @property
    def feed_forwards(self) -> tuple[FeedForward, ...]:
        return (self,)

    @property
    def routed(self) -> None:
        """It has no experts."""

    @property
    def parts(self) -> tuple[Projection | Xielu, ...]:
        return (*self.inputs, self.down, *(() if self.learned is None else (self.learned,)))


@dataclass(frozen=True, slots=True)
class RouterInput:
    """scale * norm(x) / sqrt(hidden): what a router reads of an x that its experts read by another norm."""

    norm: Normalisation  # without a weight
    scale: Vector  # (hidden,)

    @property
    def factor(self) -> float:
        return self.norm.size**-0.5

    @property
    def parts(self) -> tuple[Normalisation | Vector, ...]:
        return self.norm, self.scale


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts (Shazeer et al. 2017, arXiv 1701.06538): of the feed-forwards, each position takes a few by
    the probabilities that the router gives them, and adds up what they give, times these; see Mixture.

    A shared expert is one that every position takes, in some families times the sigmoid of a logit of its own.
    """

    router: Projection  # (experts, hidden)
    experts: tuple[FeedForward, ...]
    mixture: Mixture
    # (experts,), added to their probabilities only to choose by, so that all are taken about as often (Wang et al.
    # 2024, arXiv 2408.15664). In float32: rounded, it would choose others.
    choice_bias: Vector | None
    router_input: RouterInput | None  # None: it reads what the experts read
    expert_scale: Vector | None  # (experts,), on their weights at last
    shared: FeedForward | None
    shared_router: Projection | None  # (1, hidden)

    @property
    def feed_forwards(self) -> tuple[FeedForward, ...]:
        """All of them, the shared one last."""
        return self.experts if self.shared is None else (*self.experts, self.shared)

    @property
    def routed(self) -> Experts:
        return self

    @property
    def routers(self) -> tuple[Projection, ...]:
        return (self.router,) if self.shared_router is None else (self.router, self.shared_router)

    @property
    def parts(self) -> tuple[Projection | Xielu | Vector | Normalisation, ...]:
        others = (part for part in (self.choice_bias, self.expert_scale) if part is not None)
        router_input = () if self.router_input is None else self.router_input.parts
        return (*self.routers, *others, *router_input, *(part for each in self.feed_forwards for part in each.parts))


@dataclass(frozen=True, slots=True)
class DenseAndExperts:
    """after_dense(dense(x)) + after_experts(routed(before_experts(stream))) (Gemma 4).

    x is the residual stream by the layer's norm. The router reads the stream by one of its own.
    """

    dense: FeedForward
    routed: Experts
    after_dense: Normalisation
    before_experts: Normalisation
    after_experts: Normalisation

    @property
    def feed_forwards(self) -> tuple[FeedForward, ...]:
        return (self.dense, *self.routed.feed_forwards)

    @property
    def parts(self) -> tuple[Projection | Xielu | Vector | Normalisation, ...]:
        norms = self.after_dense, self.before_experts, self.after_experts
        return (*self.dense.parts, *self.routed.parts, *norms)


def mlp_of(config: ModelConfig, kind: LayerKind, prefix: str) -> FeedForward | Experts | DenseAndExperts:
    """What a layer of this kind computes of each position, with names that begin with `prefix`."""
    if not kind.has_experts:
        return feed_forward_of(config, prefix, kind.intermediate_size)
    if config.mixture is None or not config.mixture.beside_dense:
        return experts_of(config, prefix)
    names = ("after_dense", "before_experts", "after_experts")
    return DenseAndExperts(
        feed_forward_of(config, prefix, kind.intermediate_size),
        experts_of(config, f"{prefix}routed."),
        *(norm_of(config, prefix + name, config.hidden_size) for name in names),
    )


def experts_of(config: ModelConfig, prefix: str) -> Experts:
    """Those of one layer, whose weights' names begin with `prefix`."""
    mixture, hidden = config.mixture, config.hidden_size
    assert mixture is not None, "there are layers with experts"
    shared, router_input, expert_scale = None, None, None
    if mixture.beside_dense:
        norm = Normalisation(f"{prefix}router_norm", hidden, config.norm, config.norm_eps, weight=False)
        router_input = RouterInput(norm, Vector(f"{prefix}scale", hidden))
        expert_scale = Vector(f"{prefix}per_expert_scale", mixture.count)
    if mixture.shared_size is not None:
        shared = feed_forward_of(config, f"{prefix}shared_expert.", mixture.shared_size)
    return Experts(
        router=Projection(f"{prefix}gate", mixture.count, hidden, mixture.router_bias, exact=True),
        experts=tuple(
            feed_forward_of(config, f"{prefix}experts.{number}.", mixture.size) for number in range(mixture.count)
        ),
        mixture=mixture,
        choice_bias=Vector(f"{prefix}expert_bias", mixture.count, in_float32=True) if mixture.choice_bias else None,
        router_input=router_input,
        expert_scale=expert_scale,
        shared=shared,
        shared_router=Projection(f"{prefix}shared_expert_gate", 1, hidden, exact=True)
        if shared is not None and mixture.shared_gate
        else None,
    )


def feed_forward_of(config: ModelConfig, prefix: str, size: int | None = None) -> FeedForward:
    """One as wide as the model's, or as `size`."""
    hidden, wide, bias = config.hidden_size, config.intermediate_size if size is None else size, config.mlp_bias
    return FeedForward(
        gate=Projection(f"{prefix}gate_proj", wide, hidden, bias) if config.gated_mlp else None,
        up=Projection(f"{prefix}up_proj", wide, hidden, bias),
        down=Projection(f"{prefix}down_proj", hidden, wide, bias),
        activation=config.activation,
        learned=Xielu(f"{prefix}act_fn") if config.activation == "xielu" else None,
        swiglu=config.swiglu,
    )

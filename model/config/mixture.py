"""Mixtures of experts: how many there are, and which layers have them. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokenglass.model.config.fields import Fields
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import MOST
from tokenglass.model.errors import ConfigError

MOST_EXPERTS = 2**16  # in all layers


@dataclass(frozen=True, slots=True)
class ClampedSwiGlu:
    """gate sigmoid(alpha gate) (up + 1), of gates up to `limit` and ups within it (gpt-oss, arXiv 2508.10925)."""

    alpha: float
    limit: float

    def __post_init__(self) -> None:
        if not (0 < self.alpha < MOST and 0 < self.limit < MOST):
            raise ConfigError(f"config.json: swiglu_alpha {self.alpha} and swiglu_limit {self.limit} are not positive")


@dataclass(frozen=True, slots=True)
class Mixture:
    """Of `count` feed-forwards of `size`, each position takes the `chosen` most probable, and the shared one.

    With a `choice_bias` it takes those whose probability and bias are greatest together. What they give is weighed by
    their probabilities alone, times the `scale`.
    """

    count: int
    chosen: int
    size: int
    renormalise: bool  # the probabilities of those chosen, so that they add up to 1
    shared_size: int | None = None
    shared_gate: bool = True  # the shared expert counts the sigmoid of a logit of its own, else it counts whole
    router_bias: bool = False
    sigmoid: bool = False  # each probability is that of its own logit, in the place of a softmax over all
    choice_bias: bool = False
    float_router: bool = False  # the router's weights are never rounded
    sum_eps: float = 0.0  # added to the sum of the probabilities that are to add up to 1
    scale: float = 1.0
    beside_dense: bool = False  # a feed-forward that all positions take; then each expert's weight has a factor, too

    def __post_init__(self) -> None:
        if not 0 < self.scale < MOST:
            raise ConfigError(f"config.json: routed_scaling_factor is {self.scale}; expected a positive number")
        if not 1 <= self.chosen <= self.count <= MOST_EXPERTS:
            raise ConfigError(
                f"config.json: {self.chosen} experts of {self.count} are chosen; expected 1 or more of them"
            )


def read_mixture(
    f: Fields, *, renormalise: bool, size: str = "intermediate_size", shared: str | None = None
) -> Mixture:
    """The sizes by either of the names that files give the number of experts."""
    by_either = f.get("num_experts"), f.get("num_local_experts")  # the first may be the family's default
    return Mixture(
        count=f.integer("num_experts" if by_either[1] is None else "num_local_experts"),
        chosen=f.integer("num_experts_per_tok"),
        size=f.integer(size),
        renormalise=renormalise,
        shared_size=f.integer(shared) if shared else None,
    )


def read_sigmoid_mixture(f: Fields) -> Mixture:
    """Of DeepSeek-V3's kind (arXiv 2412.19437), whose experts are one group: sigmoids, a bias beside them to choose by,
    and shared experts that are one expert of their size together, without a gate."""
    for key in ("n_group", "topk_group"):
        if f.integer(key, 1) != 1:
            raise f.wrong(key, "1; groups of experts are not supported")
    count, shared = "num_local_experts" if f.get("num_local_experts") else "n_routed_experts", f.get("n_shared_experts")
    return Mixture(
        count=f.integer(count),
        chosen=f.integer("num_experts_per_tok"),
        size=f.integer("moe_intermediate_size"),
        renormalise=f.boolean("norm_topk_prob"),
        shared_size=f.integer("n_shared_experts") * f.integer("moe_intermediate_size") if shared else None,
        shared_gate=False,
        sigmoid=True,
        choice_bias=True,
        float_router=True,
        sum_eps=1e-20,
        scale=f.number("routed_scaling_factor"),
    )


def later_layers(f: Fields, layers: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """All but the first few have experts."""
    dense = f.integer("first_k_dense_replace")
    return tuple(replace(kind, has_experts=layer >= dense) for layer, kind in enumerate(layers))


def every_layer(layers: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    return tuple(replace(kind, has_experts=True) for kind in layers)


def some_layers(f: Fields, layers: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """Every decoder_sparse_step-th has experts, but for those in mlp_only_layers."""
    step, plain = f.integer("decoder_sparse_step", 1), f.get("mlp_only_layers") or []
    if step < 1:
        raise f.wrong("decoder_sparse_step", "at least 1")
    if not isinstance(plain, list) or any(type(layer) is not int for layer in plain):
        raise f.wrong("mlp_only_layers", "a list of layers")
    without = set(plain)
    return tuple(
        replace(kind, has_experts=(layer + 1) % step == 0 and layer not in without) for layer, kind in enumerate(layers)
    )

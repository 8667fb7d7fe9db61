"""The one description of a model: every weight with its name and shape, and how each layer is wired, from ModelConfig.

    blueprint = Blueprint.of(config)
    blueprint.shapes["model.layers.0.mlp.up_proj.weight"]  # (out, in)

Names are those of Llama checkpoints; layouts.py says what other families' files call them. The torch modules,
the native program, the audit, quantisation and attribution read this, and nobody else says what a model is made of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import Convolution, DeltaNet, LayerKind, QueryGrowth
from tokenglass.model.config.mixture import ClampedSwiGlu
from tokenglass.model.config.rope_config import Rope

Shape = tuple[int, ...]
NormKind = Literal["rms", "rms_float", "rms_plus_one", "layer"]
LAYER, HEAD, EMBEDDING, POSITIONS = "model.layers.", "lm_head", "model.embed_tokens", "model.embed_positions"
EMBEDDING_NORM = "model.embed_norm"
ENDS = frozenset({f"{EMBEDDING}.weight", f"{HEAD}.weight"})  # which a tied model holds once


@dataclass(frozen=True, slots=True)
class Projection:
    """A matrix (out, in), with or without a bias (out,). One that is `exact` is never held in fewer bits."""

    name: str
    out_features: int
    in_features: int
    bias: bool = False
    exact: bool = False

    @property
    def shapes(self) -> dict[str, Shape]:
        weight: dict[str, Shape] = {f"{self.name}.weight": (self.out_features, self.in_features)}
        return {**weight, f"{self.name}.bias": (self.out_features,)} if self.bias else weight


@dataclass(frozen=True, slots=True)
class Table:
    """One row (size,) per token or position."""

    name: str
    rows: int
    size: int

    @property
    def shapes(self) -> dict[str, Shape]:
        return {f"{self.name}.weight": (self.rows, self.size)}


@dataclass(frozen=True, slots=True)
class Normalisation:
    """A norm over each stretch of `size` numbers, with or without a weight and a bias."""

    name: str
    size: int
    kind: NormKind
    eps: float
    weight: bool = True
    bias: bool = False

    @property
    def shapes(self) -> dict[str, Shape]:
        kinds = {"weight": self.weight, "bias": self.bias}
        return {f"{self.name}.{kind}": (self.size,) for kind, there in kinds.items() if there}


@dataclass(frozen=True, slots=True)
class Scaling:
    """In the place of a norm: every number times the same factor."""

    factor: float


@dataclass(frozen=True, slots=True)
class Xielu:
    """An activation that was learned (Huang and Schlag 2024, arXiv 2411.13010), with one number for each side of 0.

    p x^2 + x / 2 above, n (e^x - 1 - x) + x / 2 below, for p = ln(1 + e^alpha_p) and n = 1/2 + ln(1 + e^alpha_n).
    """

    name: str

    @property
    def shapes(self) -> dict[str, Shape]:
        return {f"{self.name}.{side}": (1,) for side in ("alpha_p", "alpha_n")}

    @property
    def constants(self) -> dict[str, float]:
        """The 1/2, and the least distance from 0, below which rounding would take over; files may hold them."""
        return {f"{self.name}.beta": 0.5, f"{self.name}.eps": -1e-6}


@dataclass(frozen=True, slots=True)
class Sinks:
    """A logit for each query head (heads,), which takes part in its softmax and has no value: it may look away."""

    name: str
    heads: int

    @property
    def shapes(self) -> dict[str, Shape]:
        return {self.name: (self.heads,)}


@dataclass(frozen=True, slots=True)
class Attention:
    """A mixer that keeps keys and values: grouped-query attention, with rotary positions where there is a rope."""

    query: Projection
    key: Projection
    value: Projection
    output: Projection
    query_norm: Normalisation | None
    key_norm: Normalisation | None
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: Rope | None
    window: int | None  # positions a query may see, its own included; None: all before it
    scale: float  # on query times key
    softcap: float | None
    rotate_first: bool  # then normalise
    growth: QueryGrowth | None  # of queries, with the position
    sinks: Sinks | None
    gate: Projection | None  # whose sigmoid the output's inputs are multiplied by

    @property
    def group_size(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def inputs(self) -> tuple[Projection, ...]:
        """The matrices that read the same x, side by side."""
        return self.query, self.key, self.value, *(() if self.gate is None else (self.gate,))

    @property
    def parts(self) -> tuple[Projection | Normalisation | Sinks, ...]:
        others = (part for part in (self.query_norm, self.key_norm, self.sinks) if part is not None)
        return (*self.inputs, self.output, *others)


@dataclass(frozen=True, slots=True)
class Kernel:
    """The weights (channels, 1, taps) of a convolution, each channel by itself; the last tap is the position itself."""

    name: str
    channels: int
    taps: int
    bias: bool

    @property
    def shapes(self) -> dict[str, Shape]:
        weight: dict[str, Shape] = {f"{self.name}.weight": (self.channels, 1, self.taps)}
        return {**weight, f"{self.name}.bias": (self.channels,)} if self.bias else weight


@dataclass(frozen=True, slots=True)
class ShortConvolution:
    """A mixer that keeps what it convolves: output(after(x) * convolution(before(x) * middle(x))).

    It is that of LFM2 (Liquid AI 2025, arXiv 2511.23404).
    """

    before: Projection
    after: Projection
    middle: Projection
    kernel: Kernel
    output: Projection

    @property
    def inputs(self) -> tuple[Projection, ...]:
        """The matrices that read the same x, side by side."""
        return self.before, self.after, self.middle

    @property
    def parts(self) -> tuple[Projection | Kernel, ...]:
        return (*self.inputs, self.kernel, self.output)


@dataclass(frozen=True, slots=True)
class Decay:
    """How fast each head forgets (heads,): e^(-e^A_log ln(1 + e^(x + dt_bias)))."""

    name: str
    heads: int

    @property
    def shapes(self) -> dict[str, Shape]:
        return {f"{self.name}.{part}": (self.heads,) for part in ("A_log", "dt_bias")}


@dataclass(frozen=True, slots=True)
class GatedDeltaNet:
    """A mixer that folds the text into a matrix for each value head (Yang et al. 2024, arXiv 2412.06464).

    S = decay S + k (beta (v - (decay S)^T k))^T, and S^T q is what it gives, normalised, times silu(gate(x)). Queries,
    keys and values are convolved with those before them, then go through silu; queries and keys have length 1.
    """

    mixed: Projection  # queries, keys and values, one below the other
    gate: Projection
    strength: Projection  # (value heads, hidden), whose sigmoid is beta
    decay: Projection  # (value heads, hidden)
    rates: Decay
    kernel: Kernel
    norm: Normalisation
    output: Projection
    sizes: DeltaNet

    @property
    def inputs(self) -> tuple[Projection, ...]:
        """The matrices that read the same x, side by side."""
        return self.mixed, self.gate

    @property
    def parts(self) -> tuple[Projection | Decay | Kernel | Normalisation, ...]:
        return (*self.inputs, self.strength, self.decay, self.rates, self.kernel, self.norm, self.output)


Mixer = Attention | ShortConvolution | GatedDeltaNet


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
    def parts(self) -> tuple[Projection | Xielu, ...]:
        return (*self.inputs, self.down, *(() if self.learned is None else (self.learned,)))


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts (Shazeer et al. 2017, arXiv 1701.06538): of the feed-forwards, each position takes the
    `chosen` ones with the greatest router logits, and adds up what they give, times their probabilities.

    Probabilities are the softmax over all experts; where they are to `renormalise`, over those chosen. A shared expert
    is one that every position takes, times the sigmoid of a logit of its own.
    """

    router: Projection  # (experts, hidden)
    experts: tuple[FeedForward, ...]
    chosen: int
    renormalise: bool
    shared: FeedForward | None
    shared_router: Projection | None  # (1, hidden)

    @property
    def feed_forwards(self) -> tuple[FeedForward, ...]:
        """All of them, the shared one last."""
        return self.experts if self.shared is None else (*self.experts, self.shared)

    @property
    def routers(self) -> tuple[Projection, ...]:
        return (self.router,) if self.shared_router is None else (self.router, self.shared_router)

    @property
    def parts(self) -> tuple[Projection | Xielu, ...]:
        return (*self.routers, *(part for each in self.feed_forwards for part in each.parts))


Part = Projection | Table | Normalisation | Xielu | Sinks | Kernel | Decay  # all that has weights


@dataclass(frozen=True, slots=True)
class Layer:
    """x + after_mixer(mixer(before_mixer(x))), then the same with the MLP; `parallel`: both read the same x."""

    mixer: Mixer
    mlp: FeedForward | Experts
    before_mixer: Normalisation | None
    after_mixer: Normalisation | Scaling | None
    before_mlp: Normalisation | None
    after_mlp: Normalisation | Scaling | None
    parallel: bool

    @property
    def side_by_side(self) -> tuple[tuple[Projection, ...], ...]:
        """The matrices whose products are combined before any of them is whole: a gate and what it gates."""
        return tuple(each.inputs for each in self.mlp.feed_forwards)

    @property
    def norms(self) -> tuple[Normalisation | Scaling | None, ...]:
        """At the four places, in this order."""
        return self.before_mixer, self.after_mixer, self.before_mlp, self.after_mlp

    @property
    def parts(self) -> tuple[Part, ...]:
        norms = dict.fromkeys(norm for norm in self.norms if isinstance(norm, Normalisation))
        return (*self.mixer.parts, *self.mlp.parts, *norms)


@dataclass(frozen=True)
class Blueprint:
    """Embedding, layers, final norm and head. A tied head is the embedding's table, and no weight of its own."""

    config: ModelConfig
    embedding: Table
    positions: Table | None
    embedding_norm: Normalisation | None
    layers: tuple[Layer, ...]
    norm: Normalisation
    head: Projection
    tied: bool

    @staticmethod
    def of(config: ModelConfig) -> Blueprint:
        hidden = config.hidden_size
        return Blueprint(
            config=config,
            embedding=Table(EMBEDDING, config.vocab_size, hidden),
            positions=Table(POSITIONS, config.max_positions, hidden) if config.learned_positions else None,
            embedding_norm=_norm(config, EMBEDDING_NORM, hidden) if config.embedding_norm else None,
            layers=tuple(_layer(config, kind, f"{LAYER}{index}.") for index, kind in enumerate(config.layers)),
            norm=_norm(config, "model.norm", hidden),
            head=Projection(HEAD, config.vocab_size, hidden, config.head_bias),
            tied=config.tie_word_embeddings,
        )

    def parts(self) -> Iterator[Part]:
        """Everything that has weights."""
        yield self.embedding
        if self.positions is not None:
            yield self.positions
        if self.embedding_norm is not None:
            yield self.embedding_norm
        for layer in self.layers:
            yield from layer.parts
        yield self.norm
        if not self.tied:
            yield self.head

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Every weight by its name."""
        shapes = {name: shape for part in self.parts() for name, shape in part.shapes.items()}
        if self.tied and self.head.bias:
            shapes[f"{HEAD}.bias"] = (self.head.out_features,)
        return shapes

    @cached_property
    def quantisable(self) -> frozenset[str]:
        """The weights that int8 and int4 hold in fewer bits: all matrices but the learned positions and routers."""
        return frozenset(
            f"{part.name}.weight"
            for part in self.parts()
            if (isinstance(part, Table) and part.name != POSITIONS) or (isinstance(part, Projection) and not part.exact)
        )

    @property
    def constants(self) -> dict[str, float]:
        """Numbers that files may hold beside the weights, and that are the same in every model."""
        return {
            name: value for part in self.parts() if isinstance(part, Xielu) for name, value in part.constants.items()
        }

    @property
    def head_weight(self) -> str:
        return f"{EMBEDDING if self.tied else HEAD}.weight"

    @property
    def read_once(self) -> frozenset[str]:
        """Tables of which a step reads only the rows of its ids."""
        return frozenset((f"{POSITIONS}.weight", *(() if self.tied else (f"{EMBEDDING}.weight",))))

    @cached_property
    def mixtures(self) -> dict[int, Experts]:
        """The layers that have experts, by their numbers."""
        return {number: layer.mlp for number, layer in enumerate(self.layers) if isinstance(layer.mlp, Experts)}

    @cached_property
    def shares(self) -> dict[str, float]:
        """Which share of some weights a step reads: those of experts, of which it takes a few."""
        return {
            name: mixture.chosen / len(mixture.experts)
            for mixture in self.mixtures.values()
            for expert in mixture.experts
            for part in expert.parts
            for name in part.shapes
        }

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


def _norm(config: ModelConfig, name: str, size: int) -> Normalisation:
    bias = config.norm == "layer" and config.norm_bias
    return Normalisation(name, size, config.norm, config.norm_eps, config.norm_weight, bias)


def _layer(config: ModelConfig, kind: LayerKind, prefix: str) -> Layer:
    """post_attention_layernorm is, as in the checkpoints, the norm before the MLP; with post norms, that after
    attention."""

    def norm(name: str, *, there: bool = True) -> Normalisation | None:
        return _norm(config, prefix + name, config.hidden_size) if there else None

    after, scaling = config.post_norm, None if config.residual_scale is None else Scaling(config.residual_scale)
    before_mixer, before_mlp = norm("input_layernorm", there=config.pre_norm), norm("post_attention_layernorm")
    if after:
        before_mlp = norm("pre_feedforward_layernorm", there=config.pre_norm)
    return Layer(
        mixer=_mixer(config, kind, prefix),
        mlp=_experts(config, f"{prefix}mlp.") if kind.has_experts else _feed_forward(config, f"{prefix}mlp."),
        before_mixer=before_mixer,
        after_mixer=norm("post_attention_layernorm") if after else scaling,
        before_mlp=before_mixer if config.shared_norm else before_mlp,
        after_mlp=norm("post_feedforward_layernorm") if after else scaling,
        parallel=config.parallel_residual,
    )


def _mixer(config: ModelConfig, kind: LayerKind, prefix: str) -> Mixer:
    if kind.delta is not None:
        return _delta_net(config, kind.delta, f"{prefix}linear_attn.")
    if kind.convolution is None:
        return _attention(config, kind, f"{prefix}self_attn.")
    return _short_convolution(config.hidden_size, kind.convolution, f"{prefix}conv.")


def _delta_net(config: ModelConfig, sizes: DeltaNet, prefix: str) -> GatedDeltaNet:
    hidden, value = config.hidden_size, sizes.value_heads * sizes.value_dim
    return GatedDeltaNet(
        mixed=Projection(f"{prefix}in_proj_qkv", sizes.channels, hidden),
        gate=Projection(f"{prefix}in_proj_z", value, hidden),
        strength=Projection(f"{prefix}in_proj_b", sizes.value_heads, hidden, exact=True),
        decay=Projection(f"{prefix}in_proj_a", sizes.value_heads, hidden, exact=True),
        rates=Decay(prefix.removesuffix("."), sizes.value_heads),
        kernel=Kernel(f"{prefix}conv1d", sizes.channels, sizes.taps, bias=False),
        norm=Normalisation(f"{prefix}norm", sizes.value_dim, "rms", config.norm_eps),
        output=Projection(f"{prefix}out_proj", hidden, value),
        sizes=sizes,
    )


def _short_convolution(hidden: int, kind: Convolution, prefix: str) -> ShortConvolution:
    before, after, middle, output = (
        Projection(f"{prefix}{name}_proj", hidden, hidden, kind.bias) for name in ("before", "after", "middle", "out")
    )
    return ShortConvolution(before, after, middle, Kernel(f"{prefix}conv", hidden, kind.taps, kind.bias), output)


def _attention(config: ModelConfig, kind: LayerKind, prefix: str) -> Attention:
    hidden, query, key = config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim

    def norm(name: str, size: int) -> Normalisation | None:
        if config.qk_norm is None:
            return None
        return _norm(config, prefix + name, size if config.qk_norm == "projection" else config.head_dim)

    return Attention(
        query=Projection(f"{prefix}q_proj", query, hidden, config.qkv_bias),
        key=Projection(f"{prefix}k_proj", key, hidden, config.qkv_bias),
        value=Projection(f"{prefix}v_proj", key, hidden, config.qkv_bias),
        output=Projection(f"{prefix}o_proj", hidden, query, config.o_bias),
        query_norm=norm("q_norm", query),
        key_norm=norm("k_norm", key),
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        rope=kind.rope,
        window=kind.window,
        scale=config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale,
        softcap=config.attention_softcap,
        rotate_first=config.rotate_first,
        growth=config.query_growth,
        sinks=Sinks(f"{prefix}sinks", config.num_heads) if config.sinks else None,
        gate=Projection(f"{prefix}gate_proj", query, hidden, config.qkv_bias) if config.output_gate else None,
    )


def _experts(config: ModelConfig, prefix: str) -> Experts:
    mixture, hidden = config.mixture, config.hidden_size
    assert mixture is not None, "there are layers with experts"
    shared = None
    if mixture.shared_size is not None:
        shared = _feed_forward(config, f"{prefix}shared_expert.", mixture.shared_size)
    return Experts(
        router=Projection(f"{prefix}gate", mixture.count, hidden, mixture.router_bias, exact=True),
        experts=tuple(
            _feed_forward(config, f"{prefix}experts.{number}.", mixture.size) for number in range(mixture.count)
        ),
        chosen=mixture.chosen,
        renormalise=mixture.renormalise,
        shared=shared,
        shared_router=None if shared is None else Projection(f"{prefix}shared_expert_gate", 1, hidden, exact=True),
    )


def _feed_forward(config: ModelConfig, prefix: str, size: int | None = None) -> FeedForward:
    hidden, wide, bias = config.hidden_size, config.intermediate_size if size is None else size, config.mlp_bias
    return FeedForward(
        gate=Projection(f"{prefix}gate_proj", wide, hidden, bias) if config.gated_mlp else None,
        up=Projection(f"{prefix}up_proj", wide, hidden, bias),
        down=Projection(f"{prefix}down_proj", hidden, wide, bias),
        activation=config.activation,
        learned=Xielu(f"{prefix}act_fn") if config.activation == "xielu" else None,
        swiglu=config.swiglu,
    )

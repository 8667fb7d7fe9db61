"""What lets the positions of a layer see others, each with how it is wired: attention, short convolutions, Gated
DeltaNet."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokenglass.model.checkpoint.parts import Decay, HeadNorms, Kernel, Normalisation, Projection, Vector, norm_of
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import Convolution, DeltaNet, LayerKind, QueryGrowth
from tokenglass.model.config.rope_config import Rope


@dataclass(frozen=True, slots=True)
class Attention:
    """A mixer that keeps keys and values: grouped-query attention, with rotary positions where there is a rope.

    Without a value of its own, the values are the keys as they were projected. Without a key either, it reads the keys
    and values of the layer `source`.
    """

    query: Projection
    key: Projection | None
    value: Projection | None
    output: Projection
    query_norm: Normalisation | HeadNorms | None
    key_norm: Normalisation | HeadNorms | None
    value_norm: Normalisation | None  # without a weight
    source: int | None
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: Rope | None
    window: int | None  # positions a query may see, its own included; None: all before it
    scale: float  # on query times key
    softcap: float | None
    rotate_first: bool  # then normalise
    growth: QueryGrowth | None  # of queries, with the position
    sinks: Vector | None  # (heads,): a logit in the softmax of each query head, without a value: it may look away
    gate: Projection | None  # whose sigmoid the output's inputs are multiplied by, one by one or head by head

    @property
    def group_size(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_heads // self.num_kv_heads

    def keys_layer(self, layer: int) -> int:
        """The layer whose keys and values are read by this one, which is the layer of that number."""
        return layer if self.source is None else self.source

    @property
    def inputs(self) -> tuple[Projection, ...]:
        """The matrices that read the same x, side by side."""
        return self.query, *(part for part in (self.key, self.value, self.gate) if part is not None)

    @property
    def parts(self) -> tuple[Projection | Normalisation | HeadNorms | Vector, ...]:
        norms = self.query_norm, self.key_norm, self.value_norm
        others = (part for part in (*norms, self.sinks) if part is not None)
        return (*self.inputs, self.output, *others)


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


def mixer_of(config: ModelConfig, kind: LayerKind, prefix: str) -> Mixer:
    """That of one layer, whose weights' names begin with `prefix`."""
    if kind.delta is not None:
        return _delta_net(config, kind.delta, f"{prefix}linear_attn.")
    if kind.convolution is None:
        return _attention(config, kind, f"{prefix}self_attn.")
    return _short_convolution(config.hidden_size, kind.convolution, f"{prefix}conv.")


def _output_gate(config: ModelConfig, prefix: str) -> Projection | None:
    name, heads, hidden = f"{prefix}gate_proj", config.num_heads, config.hidden_size
    match config.output_gate:
        case "number":
            return Projection(name, heads * config.head_dim, hidden, config.qkv_bias)
        case "head":
            return Projection(name, heads, hidden, exact=True)
        case None:
            return None


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
    heads, hidden, bias = config.heads_of(kind), config.hidden_size, config.qkv_bias
    query, key = config.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
    has_keys = kind.source is None

    def norm(name: str, count: int) -> Normalisation | HeadNorms | None:
        if config.qk_norm is None:
            return None
        if config.qk_norm == "each_head":
            names = (f"{prefix}{name}.norms.{head}" for head in range(count))
            return HeadNorms(tuple(replace(norm_of(config, each, heads.head_dim), bias=False) for each in names))
        return norm_of(config, prefix + name, heads.head_dim * (count if config.qk_norm == "projection" else 1))

    value_norm = Normalisation(f"{prefix}v_norm", heads.head_dim, config.norm, config.norm_eps, weight=False)
    return Attention(
        query=Projection(f"{prefix}q_proj", query, hidden, bias),
        key=Projection(f"{prefix}k_proj", key, hidden, bias) if has_keys else None,
        value=Projection(f"{prefix}v_proj", key, hidden, bias) if has_keys and not kind.keys_are_values else None,
        output=Projection(f"{prefix}o_proj", hidden, query, config.o_bias),
        query_norm=norm("q_norm", config.num_heads),
        key_norm=norm("k_norm", heads.num_kv_heads) if has_keys else None,
        value_norm=value_norm if config.value_norm and has_keys else None,
        source=kind.source,
        num_heads=config.num_heads,
        num_kv_heads=heads.num_kv_heads,
        head_dim=heads.head_dim,
        rope=kind.rope,
        window=kind.window,
        scale=heads.head_dim**-0.5 if config.attention_scale is None else config.attention_scale,
        softcap=config.attention_softcap,
        rotate_first=config.rotate_first,
        growth=config.query_growth,
        sinks=Vector(f"{prefix}sinks", config.num_heads) if config.sinks else None,
        gate=_output_gate(config, prefix),
    )

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

from tokenglass.model.checkpoint.feed_forwards import DenseAndExperts, Experts, FeedForward, mlp_of
from tokenglass.model.checkpoint.layer_inputs import TokenInput, TokenRows, token_input_of, token_rows_of
from tokenglass.model.checkpoint.mixers import Attention, Mixer, mixer_of
from tokenglass.model.checkpoint.parts import (
    Normalisation,
    Part,
    Projection,
    Scaling,
    Shape,
    Table,
    Vector,
    Xielu,
    norm_of,
)
from tokenglass.model.checkpoint.quantised_layout import Format
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import LayerKind

LAYER, HEAD, EMBEDDING, POSITIONS = "model.layers.", "lm_head", "model.embed_tokens", "model.embed_positions"
EMBEDDING_NORM = "model.embed_norm"
ENDS = frozenset({f"{EMBEDDING}.weight", f"{HEAD}.weight"})  # which a tied model holds once


@dataclass(frozen=True, slots=True)
class Layer:
    """x + after_mixer(mixer(before_mixer(x))), then the same with the MLP; `parallel`: both read the same x. Then what
    it takes in of the token, and at last the scale."""

    mixer: Mixer
    mlp: FeedForward | Experts | DenseAndExperts
    before_mixer: Normalisation | None
    after_mixer: Normalisation | Scaling | None
    before_mlp: Normalisation | None
    after_mlp: Normalisation | Scaling | None
    parallel: bool
    token_input: TokenInput | None
    scale: Vector | None

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
        token_input = () if self.token_input is None else self.token_input.parts
        return (*self.mixer.parts, *self.mlp.parts, *norms, *token_input, *([] if self.scale is None else [self.scale]))


@dataclass(frozen=True)
class Blueprint:
    """Embedding, layers, final norm and head. A tied head is the embedding's table, and no weight of its own."""

    config: ModelConfig
    embedding: Table
    positions: Table | None
    embedding_norm: Normalisation | None
    token_rows: TokenRows | None
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
            embedding_norm=norm_of(config, EMBEDDING_NORM, hidden) if config.embedding_norm else None,
            token_rows=token_rows_of(config, "model."),
            layers=tuple(_layer(config, kind, f"{LAYER}{index}.") for index, kind in enumerate(config.layers)),
            norm=norm_of(config, "model.norm", hidden),
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
        if self.token_rows is not None:
            yield from self.token_rows.parts
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
        """The weights that int8 and int4 hold in fewer bits: all matrices but the learned positions, the tables that
        stay on the disk, and routers."""
        return frozenset(
            f"{part.name}.weight"
            for part in self.parts()
            if part == self.embedding or (isinstance(part, Projection) and not part.exact)
        )

    @cached_property
    def in_float32(self) -> frozenset[str]:
        """The weights that are read in float32, whatever the others are."""
        vectors = (part.name for part in self.parts() if isinstance(part, Vector) and part.in_float32)
        routers = (f"{each.router.name}.weight" for each in self.mixtures.values() if each.mixture.float_router)
        return frozenset((*vectors, *routers))

    @cached_property
    def sensitive(self) -> frozenset[str]:
        """The matrices of which 4 bits cost most for their size: the embedding, the head, and those of values."""
        mixers = (layer.mixer for layer in self.layers if isinstance(layer.mixer, Attention))
        values = (mixer.value or mixer.key for mixer in mixers)
        return ENDS.union(f"{value.name}.weight" for value in values if value is not None)

    @property
    def in_4_bits(self) -> frozenset[str]:
        """The matrices that int4 holds in 4 bits."""
        return self.quantisable - self.sensitive

    def format_of(self, name: str, format: Format) -> Format | None:  # noqa: A002  (the word for it everywhere)
        """In which a model of this format has a weight: int4 has the sensitive ones in int8. None: as numbers."""
        if name not in self.quantisable:
            return None
        return "int8" if name in self.sensitive else format

    @property
    def on_disk(self) -> frozenset[str]:
        """Large tables that stay as they are stored, and mapped: a step reads one row of them."""
        return frozenset() if self.token_rows is None else frozenset(self.token_rows.table.shapes)

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
        return frozenset((f"{POSITIONS}.weight", *self.on_disk, *(() if self.tied else (f"{EMBEDDING}.weight",))))

    @cached_property
    def mixtures(self) -> dict[int, Experts]:
        """The layers that have experts, by their numbers."""
        mixtures = ((number, layer.mlp.routed) for number, layer in enumerate(self.layers))
        return {number: routed for number, routed in mixtures if routed is not None}

    @cached_property
    def shares(self) -> dict[str, float]:
        """Which share of some weights a step reads: those of experts, of which it takes a few."""
        return {
            name: each.mixture.chosen / each.mixture.count
            for each in self.mixtures.values()
            for expert in each.experts
            for part in expert.parts
            for name in part.shapes
        }

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


def _layer(config: ModelConfig, kind: LayerKind, prefix: str) -> Layer:
    """post_attention_layernorm is, as in the checkpoints, the norm before the MLP; with post norms, that after
    attention."""

    def norm(name: str, *, there: bool = True) -> Normalisation | None:
        return norm_of(config, prefix + name, config.hidden_size) if there else None

    after, scaling = config.post_norm, None if config.residual_scale is None else Scaling(config.residual_scale)
    before_mixer, before_mlp = norm("input_layernorm", there=config.pre_norm), norm("post_attention_layernorm")
    if after:
        before_mlp = norm("pre_feedforward_layernorm", there=config.pre_norm)
    return Layer(
        mixer=mixer_of(config, kind, prefix),
        mlp=mlp_of(config, kind, f"{prefix}mlp."),
        before_mixer=before_mixer,
        after_mixer=norm("post_attention_layernorm") if after else scaling,
        before_mlp=before_mixer if config.shared_norm else before_mlp,
        after_mlp=norm("post_feedforward_layernorm") if after else scaling,
        parallel=config.parallel_residual,
        token_input=token_input_of(config, prefix),
        scale=Vector(f"{prefix}layer_scalar") if config.layer_scale else None,
    )

"""One frozen, complete description of a model, read from a checkpoint's config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tokenglass.model.config.families import FAMILIES
from tokenglass.model.config.family_defaults import DEFAULTS
from tokenglass.model.config.fields import Fields, nearest_first, quote
from tokenglass.model.config.layer_kinds import MAX_LAYERS, HeadSizes, LayerInputs, LayerKind, QueryGrowth
from tokenglass.model.config.layer_states import CONVOLUTION_INPUTS, LayerState, RecurrentState
from tokenglass.model.config.mixture import MOST_EXPERTS, ClampedSwiGlu, Mixture
from tokenglass.model.config.mixture_defaults import MIXTURE_DEFAULTS
from tokenglass.model.config.pieces import missing_pieces
from tokenglass.model.config.wrappers import media_token_ids, text_part, wrapper_of
from tokenglass.model.errors import ConfigError
from tokenglass.model.files import read_json

DTYPES = ("float32", "bfloat16", "float16")  # of weights
MOST_HEADS = 2**16  # in all layers, where each has a norm of its own
MAX_SIZE = 2**24  # beyond any model there is; an absurd file must not make us build it
SLACK = 64  # positions that a sliding-window layer holds beyond its window, so that short rewinds cost nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes and switches of a decoder-only transformer; every quirk of config.json is absorbed here.

    The defaults of the switches are Llama's.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    layers: tuple[LayerKind, ...]
    norm_eps: float
    tie_word_embeddings: bool
    dtype: str
    eos_token_ids: tuple[int, ...] = ()
    mask_token_id: int | None = None  # what stands for a token to be filled in, where the model learned that
    # rms_float multiplies by the weight before it rounds to the dtype; rms_plus_one does so too, by 1 + weight
    norm: Literal["rms", "rms_float", "rms_plus_one", "layer"] = "rms"
    norm_weight: bool = True
    norm_bias: bool = True  # of a layer norm; no other has one
    pre_norm: bool = True  # normalise what enters attention and MLP
    post_norm: bool = False  # normalise what they add to the residual stream
    embedding_norm: bool = False  # normalise the embedding
    parallel_residual: bool = False  # the MLP reads what attention reads
    shared_norm: bool = False  # and by the same norm
    residual_scale: float | None = None  # on what attention and MLP add to the residual stream
    # normalise queries and keys: each head, each with a weight of its own, or all heads at once
    qk_norm: Literal["head", "each_head", "projection"] | None = None
    rotate_first: bool = False  # then normalise queries and keys
    value_norm: bool = False  # normalise values, per head and without a weight
    query_growth: QueryGrowth | None = None  # with the position
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    gated_mlp: bool = True
    swiglu: ClampedSwiGlu | None = None  # in place of the activation
    output_gate: Literal["number", "head"] | None = None  # each that attention gives, times a sigmoid of its input
    sinks: bool = False  # attention may look at nothing, as far as each head has learned
    mixture: Mixture | None = None  # of experts, in the layers that have some
    layer_inputs: LayerInputs | None = None  # of each token, for every layer
    layer_scale: bool = False  # a learned factor on what leaves each layer
    head_bias: bool = False
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared", "xielu"] = "silu"
    attention_scale: float | None = None  # on query times key; None: 1 / sqrt(head_dim)
    attention_softcap: float | None = None
    logit_scale: float | None = None
    logit_softcap: float | None = None
    embedding_scale: float | None = None
    learned_positions: bool = False
    wrapper: str | None = None  # the model_type around it, where this is the text part of a model that also sees
    media_token_ids: tuple[int, ...] = ()  # ids that stand for what such a model sees, which no text has
    notes: tuple[str, ...] = field(default=(), compare=False)  # what the file says and nothing follows, for the user

    def __post_init__(self) -> None:
        for name in (
            *("vocab_size", "hidden_size", "intermediate_size"),
            *("num_heads", "num_kv_heads", "head_dim", "max_positions"),
        ):
            size = getattr(self, name)
            if not 1 <= size <= MAX_SIZE:
                raise ConfigError(f"config.json: {name} is {quote(size)}; expected between 1 and {MAX_SIZE:,}")
        if not 1 <= self.num_layers <= MAX_LAYERS:
            raise ConfigError(f"config.json: num_layers is {self.num_layers}; expected between 1 and {MAX_LAYERS:,}")
        if self.mixture is not None:
            self._check_experts(self.mixture)
        if self.layer_inputs is not None:
            self._check_layer_inputs(self.layer_inputs)
        if self.qk_norm == "each_head" and self.num_heads * self.num_layers > MOST_HEADS:
            raise ConfigError(
                f"config.json: {self.num_heads} heads in {self.num_layers} layers, each with a norm of its own; "
                f"expected {MOST_HEADS:,} in all at most"
            )
        for kind in {replace(kind, source=None) for kind in self.layers}:
            self._check_heads(kind)
        for name in (
            *("norm_eps", "attention_scale", "attention_softcap", "logit_scale", "logit_softcap"),
            *("embedding_scale", "residual_scale"),
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"config.json: {name} is {value}; expected a positive number")
        if self.mask_token_id is not None and self.mask_token_id >= self.vocab_size:
            raise ConfigError(
                f"config.json: mask_token_id is {quote(self.mask_token_id)}, beyond the {self.vocab_size:,} tokens"
            )
        self._refuse_combinations()

    def _check_heads(self, kind: LayerKind) -> None:
        """Raises ConfigError for sizes of heads and of a feed-forward that no model has."""
        heads = self.heads_of(kind)
        for name, size in (("num_kv_heads", heads.num_kv_heads), ("head_dim", heads.head_dim)):
            if not 1 <= size <= MAX_SIZE:
                raise ConfigError(
                    f"config.json: {name} is {quote(size)} in some layers; expected between 1 and {MAX_SIZE:,}"
                )
        if self.num_heads * heads.head_dim > MAX_SIZE:
            raise ConfigError(
                f"config.json: {self.num_heads} heads of size {heads.head_dim} are more than {MAX_SIZE:,}"
            )
        if self.num_heads % heads.num_kv_heads:
            raise ConfigError(
                f"config.json: {self.num_heads} attention heads cannot be shared by {heads.num_kv_heads} "
                "key-value heads"
            )
        dim = 2 if kind.rope is None else kind.rope.dim
        if kind.rope is not None and (dim % 2 or not 2 <= dim <= heads.head_dim):
            raise ConfigError(
                f"config.json: head_dim is {heads.head_dim}; rotary positions need an even number, not {dim}"
            )

    def _check_layer_inputs(self, inputs: LayerInputs) -> None:
        """Raises ConfigError for sizes that no model has."""
        if not 1 <= inputs.size <= MAX_SIZE:
            raise ConfigError(
                f"config.json: hidden_size_per_layer_input is {quote(inputs.size)}; expected between 1 and {MAX_SIZE:,}"
            )
        if not self.vocab_size <= inputs.rows <= MAX_SIZE:
            raise ConfigError(
                f"config.json: vocab_size_per_layer_input is {quote(inputs.rows)}; expected {self.vocab_size:,}, "
                "the tokens there are, or more"
            )

    def _check_experts(self, mixture: Mixture) -> None:
        """Raises ConfigError for sizes that no model has."""
        for size in (mixture.size, mixture.shared_size):
            if size is not None and not 1 <= size <= MAX_SIZE:
                raise ConfigError(f"config.json: an expert's size is {size}; expected between 1 and {MAX_SIZE:,}")
        if self.num_experts > MOST_EXPERTS:
            raise ConfigError(
                f"config.json: {self.num_experts:,} experts in all layers; expected {MOST_EXPERTS:,} at most"
            )

    def _refuse_combinations(self) -> None:
        """Raises ConfigError for what is built, but not together."""
        if self.activation == "xielu" and self.gated_mlp:
            raise ConfigError("config.json: the activation xielu is not supported in a gated MLP")
        if self.parallel_residual and self.post_norm:
            raise ConfigError("config.json: an MLP beside attention is not supported with norms on what they add")
        if self.sinks and self.attention_softcap is not None:
            raise ConfigError("config.json: attention sinks are not supported beside a soft cap of attention")
        if self.hidden_size % self.num_heads and any(kind.convolution for kind in self.layers):
            raise ConfigError(
                f"config.json: {self.num_heads} heads do not divide the {self.hidden_size} channels of a convolution"
            )
        if len({kind.window for kind in self.layers} - {None}) > 1:
            raise ConfigError("config.json: sliding windows of different sizes are not supported")

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def num_experts(self) -> int:
        """In all layers."""
        return 0 if self.mixture is None else self.mixture.count * sum(kind.has_experts for kind in self.layers)

    @property
    def overflows_float16(self) -> bool:
        """Whether hidden states outgrow float16, as Gemma's do, whose norms multiply by 1 + weight."""
        return self.norm == "rms_plus_one"

    def heads_of(self, kind: LayerKind) -> HeadSizes:
        """Those of one layer."""
        return HeadSizes(self.num_kv_heads, self.head_dim) if kind.heads is None else kind.heads

    @property
    def group_size(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def window(self) -> int | None:
        """Positions that a query of a sliding-window layer may see; None where no layer has a window."""
        return next((kind.window for kind in self.layers if kind.window is not None), None)

    @property
    def layer_states(self) -> dict[int, LayerState | RecurrentState]:
        """What each layer keeps, by its kind of mixer; one that reads what another keeps is not in it."""
        return {layer: self._state_of(kind) for layer, kind in enumerate(self.layers) if kind.source is None}

    def _state_of(self, kind: LayerKind) -> LayerState | RecurrentState:
        """Of each position keys and values, or what a convolution takes in; or of the whole text its matrices."""
        if kind.delta is not None:
            return RecurrentState(kind.delta.state_size)
        if kind.convolution is not None:
            return LayerState(1, self.num_heads, self.hidden_size // self.num_heads, name=CONVOLUTION_INPUTS)
        heads = self.heads_of(kind)
        return LayerState(2, heads.num_kv_heads, heads.head_dim, kind.window)

    def cache_bytes_per_token(self, dtype: str) -> int:
        """Bytes of a cache of float32, bfloat16, float16 or int8 that one position takes, held by every layer."""
        return sum(state.bytes_per_token(dtype) for state in self.layer_states.values())

    def cache_bytes(self, length: int, dtype: str) -> int:
        """Bytes of cache for `length` positions: sliding-window layers hold their window and slack at most."""
        return sum(
            state.fixed_bytes
            + state.bytes_per_token(dtype) * (length if state.window is None else min(length, state.window + 2 * SLACK))
            for state in self.layer_states.values()
        )

    def rope_regime(self, length: int) -> tuple[int, ...]:
        """Runs with the same regime have the same rotary factors, so one can go on with the other's cache."""
        ropes = dict.fromkeys(kind.rope for kind in self.layers if kind.rope is not None)
        return tuple(rope.regime(length) for rope in ropes)

    @staticmethod
    def from_file(path: Path) -> ModelConfig:
        """Read a config.json. Raises ConfigError."""
        return ModelConfig.from_hf(read_json(path))

    @staticmethod
    def from_hf(raw: Mapping[str, Any]) -> ModelConfig:
        """Read the fields of a Hugging Face config as transformers does; refuse by name what is not built.

        Of a wrapper, the text part is read.
        """
        whole, raw = raw, text_part(raw)
        model_type = raw.get("model_type")
        if not isinstance(model_type, str) or model_type not in FAMILIES:
            missing = missing_pieces(whole)
            reason = f"it has {', '.join(missing)}" if missing else f"supported: {nearest_first(model_type, FAMILIES)}"
            raise ConfigError(f"config.json: model_type {quote(model_type)} is not supported ({reason})")
        fields = Fields({**DEFAULTS.get(model_type, {}), **MIXTURE_DEFAULTS.get(model_type, {}), **raw})
        switches = FAMILIES[model_type](fields)
        if "per_layer_config" not in fields.asked:
            fields.refuse("per_layer_config")
        note_unread(fields)
        return ModelConfig(
            model_type=model_type,
            dtype=_dtype(raw),
            eos_token_ids=token_ids(raw, "eos_token_id", "config.json"),
            mask_token_id=next(iter(token_ids(raw, "mask_token_id", "config.json")), None),
            wrapper=whole["model_type"] if wrapper_of(whole) else None,
            media_token_ids=media_token_ids(whole),
            notes=tuple(fields.notes),
            **{"tie_word_embeddings": fields.boolean("tie_word_embeddings", False), **switches},
        )


# Options of some families, with the values that change nothing; transformers does not look at them in the others.
ELSEWHERE: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("attention_bias", "mlp_bias", "lm_head_bias", "use_qk_norm", "qk_layernorm"), (False,)),
    **dict.fromkeys(("use_sliding_window", "use_parallel_residual", "rope_interleaved", "alibi"), (False,)),
    **dict.fromkeys(("is_encoder_decoder", "add_cross_attention", "use_bidirectional_attention"), (False,)),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "no_rope_layers", "layer_types", "clip_qkv"), ()),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), ()),
    **dict.fromkeys(("query_pre_attn_scalar", "attention_multiplier"), ()),
    **dict.fromkeys(("logit_scale", "logits_scaling", "embedding_multiplier", "residual_multiplier"), (1,)),
    **dict.fromkeys(("rope_scaling", "rope_parameters"), ({},)),
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct"), (1,)),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), (0, 1)),
}


def note_unread(fields: Fields) -> None:
    """Note the options of other families that the file sets."""
    raw = fields.raw
    unread = [key for key in ELSEWHERE if key not in fields.asked and raw.get(key) is not None]
    all_full = ["full_attention"] * len(raw["layer_types"]) if isinstance(raw.get("layer_types"), list) else []
    neutral = {**ELSEWHERE, "layer_types": (all_full,)}
    fields.ignore([key for key in unread if raw[key] not in neutral[key]])


def token_ids(raw: Mapping[str, Any], key: str, source: str) -> tuple[int, ...]:
    """A field that holds one token id, a list of them, or null."""
    value = raw.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    for item in values:
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise ConfigError(f"{source}: {key} is {quote(value)}; expected a token id or a list of them")
    return tuple(values)


def names_dtype(raw: Mapping[str, Any]) -> bool:
    """Whether the file says what the weights are stored in."""
    return bool(raw.get("dtype") or raw.get("torch_dtype"))


def _dtype(raw: Mapping[str, Any]) -> str:
    name = raw.get("dtype") or raw.get("torch_dtype") or "float32"
    if not isinstance(name, str) or name not in DTYPES:
        raise ConfigError(f"config.json: dtype {quote(name)} is not supported (supported: {', '.join(DTYPES)})")
    return name

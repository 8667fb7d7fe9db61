"""What differs from layer to layer, and how config.json tells it: ropes, windows, convolutions. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.config.rope_config import MOST, Dynamic, Rope, read_rope
from tokenglass.model.errors import ConfigError

MAX_LAYERS = 1024
MAX_TAPS = 128  # of a convolution
MAX_DELTA = 4096  # heads of linear attention, and numbers of one


@dataclass(frozen=True, slots=True)
class QueryGrowth:
    """Queries times 1 + beta * ln(1 + floor(position / trained_positions)), so that attention stays sharp in long
    contexts (Llama 4's temperature tuning)."""

    beta: float
    trained_positions: int

    def __post_init__(self) -> None:
        if not (0 < self.beta < MOST and 1 <= self.trained_positions < MOST):
            raise ConfigError(
                f"config.json: llama_4_scaling_beta {self.beta} beside {self.trained_positions} trained positions; "
                "expected positive numbers"
            )


@dataclass(frozen=True, slots=True)
class Convolution:
    """A short convolution in the place of attention: each channel mixes its last `taps` positions."""

    taps: int
    bias: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.taps <= MAX_TAPS:
            raise ConfigError(f"config.json: conv_L_cache is {self.taps}; expected between 1 and {MAX_TAPS}")


@dataclass(frozen=True, slots=True)
class DeltaNet:
    """The sizes of a Gated DeltaNet in the place of attention: each of the key heads serves as many value heads."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    taps: int  # positions that the convolution before it mixes

    def __post_init__(self) -> None:
        sizes = (self.key_heads, self.value_heads, self.key_dim, self.value_dim, self.taps)
        if not all(1 <= size <= MAX_DELTA for size in sizes) or self.taps > MAX_TAPS:
            raise ConfigError(
                f"config.json: {self.key_heads} and {self.value_heads} heads of {self.key_dim} and {self.value_dim} "
                f"with a convolution of {self.taps} are no sizes of linear attention"
            )
        if self.value_heads % self.key_heads:
            raise ConfigError(
                f"config.json: {self.value_heads} value heads cannot be shared by {self.key_heads} key heads"
            )

    @property
    def channels(self) -> int:
        """Numbers that are convolved: queries, keys and values of all heads."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def state_size(self) -> int:
        """Numbers that are left behind: the last inputs of the convolution, and a matrix for each value head."""
        return (self.taps - 1) * self.channels + self.value_heads * self.key_dim * self.value_dim


@dataclass(frozen=True, slots=True)
class HeadSizes:
    """Key-value heads, and how many numbers a head has."""

    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """A vector of `size` numbers that each layer takes in of every token, out of a table of `rows` tokens."""

    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What differs from layer to layer: the rope (None: no positions), the window (None: everything before), whether
    the feed-forward is a mixture of experts, and what mixes positions where it is not attention.

    `heads` and `intermediate_size` are None where they are the model's.
    """

    rope: Rope | None
    window: int | None = None  # positions a query may see, its own included
    has_experts: bool = False
    convolution: Convolution | None = None
    delta: DeltaNet | None = None
    heads: HeadSizes | None = None
    intermediate_size: int | None = None
    source: int | None = None  # the layer whose keys and values it reads, where it has none
    keys_are_values: bool = False  # but for the norm and the rope of keys


def with_layers(
    f: Fields, *, windows: Sequence[int | None] = (), theta: str = "rope_theta", partial: str | None = None
) -> dict[str, Any]:
    """One rope for all layers, from either style of file, and a window for each."""
    count, most = num_layers(f), f.integer("max_position_embeddings")
    num_heads = f.integer("num_attention_heads")
    scaling, newer = f.part("rope_scaling"), f.part("rope_parameters")
    note_difference(f, scaling.raw, newer.raw)
    trained = f.get("original_max_position_embeddings")
    rope = read_rope(
        scaling if scaling.raw else newer,
        theta=f.number(theta),
        head_dim=f.integer("head_dim", f.integer("hidden_size") // max(num_heads, 1)),
        max_positions=most,
        partial=f.number(partial, 1.0) if partial else None,
        trained=None if trained is None else f.integer("original_max_position_embeddings"),
    )
    if partial is None and rope.scaling is not None and f.number("partial_rotary_factor", 1.0) != 1:
        raise f.wrong("partial_rotary_factor", "1 beside a scaled rope")
    if isinstance(rope.scaling, Dynamic):
        most = max(most, int(most * rope.scaling.factor))
    kinds = tuple(LayerKind(rope, within(size, most)) for size in (windows or [None] * count))
    return {"layers": kinds, "max_positions": most}


def note_difference(f: Fields, scaling: Mapping[str, Any], newer: Mapping[str, Any]) -> None:
    """Note that a file says two things about its rope."""
    if scaling and newer and scaling != newer:
        f.notes.append("config.json: rope_scaling and rope_parameters differ; rope_scaling counts, as in transformers")


def ropes_by_type(
    f: Fields,
    windows: Sequence[int | None],
    head_dim: int,
    theta: float,
    local_theta: float,
    full_head_dim: int | None = None,
) -> dict[str, Any]:
    """A rope for the layers with a window and one for the others, from either style of file.

    `full_head_dim` is the size of the others' heads, where they have another.
    """
    per_type, most = f.part("rope_parameters"), f.integer("max_position_embeddings")
    older = f.part("rope_scaling")  # one object, of the full layers, whose keys win
    full = Fields({**per_type.part("full_attention").raw, **older.raw}, older.where, f.notes)
    ropes = {
        True: read_rope(drop_truncate(full), theta=theta, head_dim=full_head_dim or head_dim, max_positions=most),
        False: read_rope(
            drop_truncate(per_type.part("sliding_attention")), theta=local_theta, head_dim=head_dim, max_positions=most
        ),
    }
    per_type.ignore([key for key in per_type.raw if key not in per_type.asked])
    kinds = tuple(LayerKind(ropes[size is None], within(size, most)) for size in windows)
    return {"layers": kinds, "max_positions": most}


def drop_truncate(rope: Fields) -> Fields:
    """A rope without yarn's `truncate`, which transformers looks for beside the objects per layer type, not in them."""
    rope.ignore([key for key in ("truncate",) if key in rope.raw])
    return Fields({key: value for key, value in rope.raw.items() if key != "truncate"}, rope.where, rope.notes)


def rope_where_windowed(layers: Sequence[LayerKind], windows: Sequence[int | None]) -> tuple[LayerKind, ...]:
    """The layers, with positions only in those that the file gives a window."""
    pairs = zip(layers, windows, strict=True)
    return tuple(kind if size is not None else replace(kind, rope=None) for kind, size in pairs)


def num_layers(f: Fields, key: str = "num_hidden_layers") -> int:
    count = f.integer(key)
    if not 1 <= count <= MAX_LAYERS:  # before a list of them is made
        raise f.wrong(key, f"between 1 and {MAX_LAYERS:,}")
    return count


def window(f: Fields) -> int | None:
    """The size of the sliding window; None where there is none."""
    if f.get("sliding_window") is None:
        return None
    size = f.integer("sliding_window")
    if size < 1:
        raise f.wrong("sliding_window", "at least 1")
    return size


def within(size: int | None, max_positions: int) -> int | None:
    """A window; None where it is as long as the context, and so hides nothing."""
    return None if size is None or size >= max_positions else size


def qwen_windows(f: Fields, slides: Sequence[bool] | None = None) -> list[int | None]:
    """Windows of files with use_sliding_window: those from layer max_window_layers on, unless `slides` says which."""
    count, size = num_layers(f), window(f)
    if slides is None:
        first = f.integer("max_window_layers")
        slides = [layer >= first for layer in range(count)]
    if f.boolean("use_sliding_window") and size is not None:
        return windows_by_type(f, [not sliding for sliding in slides])
    if "sliding_attention" in (f.items("layer_types", count) or ()):
        raise ConfigError("config.json: layer_types names sliding_attention, but use_sliding_window is off")
    return [None] * count


def full_by_pattern(f: Fields, every: int) -> list[bool]:
    """Which layers are full by sliding_window_pattern, at which nobody looks where there are layer_types."""
    if f.get("layer_types") is not None:
        return [True] * num_layers(f)
    return alternating(num_layers(f), f.integer("sliding_window_pattern", every))


def windows_by_type(f: Fields, full: Sequence[bool]) -> list[int | None]:
    """Windows by layer_types; where the file has none, all but the `full` layers have the window."""
    size = window(f)
    types = f.items("layer_types", len(full))
    if types is None:
        types = tuple("full_attention" if layer else "sliding_attention" for layer in full)
    types = tuple("full_attention" if name == "attention" else name for name in types)  # as it was once called
    for name in types:
        if name not in ("full_attention", "sliding_attention"):
            raise ConfigError(f"config.json: layer_types names {quote(name)}, which is not supported")
    if size is None and "sliding_attention" in types:
        raise ConfigError("config.json: layer_types names sliding_attention, but there is no sliding_window")
    return [size if name == "sliding_attention" else None for name in types]


def alternating(count: int, every: int) -> list[bool]:
    """Which layers are full when every `every`-th is."""
    if every < 1:
        raise ConfigError(f"config.json: a pattern of {every} layers; expected at least 1")
    return [(layer + 1) % every == 0 for layer in range(count)]

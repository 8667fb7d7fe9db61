"""What config.json says about rotary positions. No torch here; model/torch_engine/rope.py computes with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.errors import ConfigError

LEAST, MOST = 1e-6, 1e9  # of a factor; beyond, float32 overflows somewhere
MOST_THETA = 1e30


@dataclass(frozen=True, slots=True)
class Linear:
    """Positions divided by `factor` (position interpolation, Chen et al. 2023, arXiv 2306.15595)."""

    factor: float


@dataclass(frozen=True, slots=True)
class Dynamic:
    """A base that grows with the length beyond the trained one (NTK-aware scaling, bloc97 and emozilla 2023)."""

    factor: float
    trained_positions: int


@dataclass(frozen=True, slots=True)
class Yarn:
    """Interpolation by wavelength, with sharper attention (YaRN, Peng et al. 2023, arXiv 2309.00071)."""

    factor: float
    trained_positions: int
    attention_factor: float
    beta_fast: float
    beta_slow: float
    whole_bounds: bool  # round the ramp's ends outwards to whole dimensions


@dataclass(frozen=True, slots=True)
class LongRope:
    """Searched factors per pair, one list up to the trained length and one beyond (Ding et al. 2024, 2402.13753)."""

    trained_positions: int
    attention_factor: float
    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Llama3:
    """Long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1, arXiv 2407.21783)."""

    factor: float
    trained_positions: int
    low_freq_factor: float
    high_freq_factor: float


@dataclass(frozen=True, slots=True)
class Proportional:
    """The first pairs of a head turn as in a head that turns whole, divided by `factor`; the others stand still."""

    pairs: int
    factor: float


Scaling = Linear | Dynamic | Yarn | LongRope | Llama3 | Proportional


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions over the first `dim` numbers of each head, with base `theta`."""

    theta: float
    dim: int
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        if not LEAST <= self.theta <= MOST_THETA:
            bounds = f"between {LEAST:g} and {MOST_THETA:g}"
            raise ConfigError(f"config.json: rope_theta is {self.theta}; expected a positive number, {bounds}")
        if isinstance(self.scaling, Dynamic) and self.dim == 2:
            raise ConfigError("config.json: dynamic rope scaling needs more than 2 rotary dimensions")
        if isinstance(self.scaling, Yarn) and self.theta <= 1:
            raise ConfigError(f"config.json: rope_theta is {self.theta}; yarn needs more than 1")

    @property
    def kind(self) -> str:
        """The scaling's name, in lower case; default where there is none."""
        return "default" if self.scaling is None else type(self.scaling).__name__.lower()

    def regime(self, length: int) -> int:
        """What a run of `length` positions means for the factors: runs of equal regime can share a cache."""
        match self.scaling:
            case Dynamic(trained_positions=trained):
                return max(length, trained)
            case LongRope(trained_positions=trained):
                return int(length > trained)
            case _:
                return 0


KNOWN = {
    *("rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings"),
    *("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    *("short_factor", "long_factor", "low_freq_factor", "high_freq_factor"),
}


def read_rope(
    f: Fields,
    *,
    theta: float,
    head_dim: int,
    max_positions: int,
    partial: float | None = None,
    trained: int | None = None,
) -> Rope:
    """The rope of a `rope_parameters` or `rope_scaling` object; `theta` and `partial` fill in what it leaves out.

    A family whose `partial` is None turns whole heads only. `trained` wins over original_max_position_embeddings.
    Options that no rope has are noted, as transformers warns of them. Raises ConfigError.
    """
    for key in ("full_attention", "sliding_attention"):
        if key in f.raw:
            raise ConfigError(f"{f.where}: an object per layer type is not supported for this family; give one for all")
    f.ignore([key for key in f.raw if key not in KNOWN and f.raw[key] is not None])
    theta = f.number("rope_theta", theta)
    share = f.number("partial_rotary_factor", 1.0 if partial is None else partial)
    if rope_type(f) == "proportional" and partial is None and 0 <= share <= 1:
        return Rope(theta, head_dim, Proportional(int(share * head_dim // 2), positive(f, "factor", 1.0)))
    if partial is None and share != 1 and rope_type(f) == "default":
        f.ignore(["partial_rotary_factor"] if "partial_rotary_factor" in f.raw else [])
        share = 1.0
    if not 0 < share <= 1 or (partial is None and share != 1):
        raise ConfigError(f"{f.where}: partial_rotary_factor {share} is not supported; it would change the numbers")
    dim = int(head_dim * share)
    return Rope(theta, dim, read_scaling(f, dim, max_positions, trained))


def rope_type(f: Fields) -> str:
    """The kind of scaling, by either name; rope_type wins."""
    return f.text("rope_type", f.text("type", "default"))


def read_scaling(f: Fields, dim: int, max_positions: int, trained: int | None) -> Scaling | None:
    """The scaling that rope_type names, its defaults those of the papers."""
    kind = rope_type(f)
    if kind == "su" or (kind == "yarn" and "short_factor" in f.raw):
        kind = "longrope"  # as the first files of phi3 call it
    if kind not in ("linear", "dynamic", "yarn", "longrope", "llama3"):
        if kind != "default":
            raise ConfigError(f"{f.where} with rope_type {quote(kind)} is not supported; it would change the numbers")
        return None
    if kind == "linear":
        return Linear(positive(f, "factor"))
    if kind == "dynamic":
        return Dynamic(positive(f, "factor"), max_positions)
    trained = f.integer("original_max_position_embeddings", max_positions) if trained is None else trained
    if not 2 <= trained <= MOST:
        raise ConfigError(f"{f.where}: original_max_position_embeddings is {trained}; expected at least 2")
    if kind == "llama3":
        low, high = positive(f, "low_freq_factor"), positive(f, "high_freq_factor")
        if high <= low:
            raise f.wrong("high_freq_factor", f"more than low_freq_factor, {low}")
        return Llama3(positive(f, "factor"), trained, low, high)
    factor = positive(f, "factor", max_positions / trained)
    if kind == "yarn":
        fast = positive(f, "beta_fast") if f.get("beta_fast") else 32.0
        slow = positive(f, "beta_slow") if f.get("beta_slow") else 1.0
        sharper = positive(f, "attention_factor", yarn_attention_factor(f, factor))
        return Yarn(factor, trained, sharper, fast, slow, f.boolean("truncate", default="truncate" not in f.raw))
    wider = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    short, long = (f.numbers(key, dim // 2) for key in ("short_factor", "long_factor"))
    for key, factors in (("short_factor", short), ("long_factor", long)):
        if not all(LEAST <= one <= MOST for one in factors):
            raise f.wrong(key, f"positive numbers, between {LEAST:g} and {MOST:g}")
    return LongRope(trained, positive(f, "attention_factor", wider), short, long)


def yarn_attention_factor(f: Fields, factor: float) -> float:
    """0.1 ln(factor) + 1 (YaRN, section 3.4), or the ratio of two such terms (DeepSeek-V2, arXiv 2405.04434)."""

    def sharpening(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if f.get("mscale") and f.get("mscale_all_dim"):
        return sharpening(positive(f, "mscale")) / sharpening(positive(f, "mscale_all_dim"))
    return sharpening(1.0)


def positive(f: Fields, key: str, default: float | None = None) -> float:
    value = f.number(key, default)
    if not LEAST <= value <= MOST:
        raise f.wrong(key, f"a positive number, between {LEAST:g} and {MOST:g}")
    return value

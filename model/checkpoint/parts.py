"""The smallest pieces of a model: each names its weights and their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokenglass.model.config.config import ModelConfig

Shape = tuple[int, ...]
NormKind = Literal["rms", "rms_float", "rms_plus_one", "layer"]


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
        return weight_and_bias(self.name, (self.out_features, self.in_features), bias=self.bias)


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
class HeadNorms:
    """A norm for each head, with a weight of its own."""

    heads: tuple[Normalisation, ...]

    @property
    def size(self) -> int:
        return self.heads[0].size

    @property
    def shapes(self) -> dict[str, Shape]:
        return {name: shape for head in self.heads for name, shape in head.shapes.items()}


@dataclass(frozen=True, slots=True)
class Scaling:
    """In the place of a norm: every number times the same factor."""

    factor: float


@dataclass(frozen=True, slots=True)
class Vector:
    """Learned numbers (size,) that are no norm's, such as a factor for each expert."""

    name: str
    size: int = 1
    in_float32: bool = False  # whatever the other weights are

    @property
    def shapes(self) -> dict[str, Shape]:
        return {self.name: (self.size,)}


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
class Kernel:
    """The weights (channels, 1, taps) of a convolution, each channel by itself; the last tap is the position itself."""

    name: str
    channels: int
    taps: int
    bias: bool

    @property
    def shapes(self) -> dict[str, Shape]:
        return weight_and_bias(self.name, (self.channels, 1, self.taps), bias=self.bias)


@dataclass(frozen=True, slots=True)
class Decay:
    """How fast each head forgets (heads,): e^(-e^A_log ln(1 + e^(x + dt_bias)))."""

    name: str
    heads: int

    @property
    def shapes(self) -> dict[str, Shape]:
        return {f"{self.name}.{part}": (self.heads,) for part in ("A_log", "dt_bias")}


Part = Projection | Table | Normalisation | HeadNorms | Vector | Xielu | Kernel | Decay
"""All that has weights."""


def weight_and_bias(name: str, shape: Shape, *, bias: bool) -> dict[str, Shape]:
    """A weight, and where there is one its bias: a number for each of what the weight gives."""
    weight = {f"{name}.weight": shape}
    return {**weight, f"{name}.bias": shape[:1]} if bias else weight


def norm_of(config: ModelConfig, name: str, size: int) -> Normalisation:
    """A norm of the model's kind."""
    bias = config.norm == "layer" and config.norm_bias
    return Normalisation(name, size, config.norm, config.norm_eps, config.norm_weight, bias)

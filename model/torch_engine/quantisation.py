"""Weights of 8 and 4 bits: how they are made, what they are worth, and modules that hold them.

How each part of a model is kept by `quantize_model`: every projection, the embedding and the head become `Int8Weight`
or `Int4Weight`, and a tied head shares the embedding's; norms, biases and learned positions stay numbers, in float32.
Activations are never quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenglass.model.checkpoint.quantised_layout import (
    GROUP,
    PANEL,
    STEP,
    UNIT,
    Format,
    int4_shapes,
    int8_shape,
    is_quantised,
)
from tokenglass.model.errors import CheckpointError
from tokenglass.model.torch_engine.transformer import Transformer

LEVELS = 15  # steps of a nibble
LEAST_SCALE = 2.0**-24  # of float16; so that a group of one value divides by no zero
CHUNK = 1 << 13  # groups that are worked on at once, so that they stay in the processor's cache
# Where int4's grid may begin and end, in shares of the group's span beyond its least and greatest weight.
GRIDS = ((0.0, 0.0), (0.04, -0.04), (0.05, 0.0), (0.0, -0.05))


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A matrix (out, in) as int8 values times a float32 scale per row (out,).

    `values` is int8 (panels, units, 16, 4): rows lie in panels of 16, and unit u of a panel holds elements 4 u ... of
    each of its rows. Rows are filled up with zeros to a multiple of 64 elements, and matrices to whole panels.
    """

    values: Tensor
    scales: Tensor
    in_features: int

    def __post_init__(self) -> None:
        shape = int8_shape(self.out_features, self.in_features)
        if self.values.dtype != torch.int8 or self.values.shape != shape or not self.values.is_contiguous():
            raise ValueError("values are int8 (panels, units, 16, 4), in this order")
        if self.scales.dtype != torch.float32 or self.scales.dim() != 1:
            raise ValueError("scales are float32 (out,)")

    @property
    def out_features(self) -> int:
        return self.scales.shape[0]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scales.nbytes

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / (self.out_features * self.in_features)

    def dequantize(self) -> Tensor:
        """float32 (out, in)."""
        return self.rows(torch.arange(self.out_features, device=self.scales.device))

    def rows(self, index: Tensor) -> Tensor:
        """float32 (*index, in): only those rows."""
        return rows_of(self.values, index)[..., : self.in_features] * self.scales[index][..., None]


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """A matrix (out, in) in groups of 32 along `in`, each weight its nibble times the group's scale plus its offset.

    `packed` is uint8 (panels, groups * 4, 16, 4), in panels as in int8. Byte j of a row's 16 of a group holds
    element j in its low and element j + 16 in its high nibble. `scales` and `offsets` are float16 (panels, groups, 16).
    The last group may be longer than the rows are, and the last panel have more rows than the matrix.
    """

    packed: Tensor
    scales: Tensor
    offsets: Tensor
    out_features: int
    in_features: int

    def __post_init__(self) -> None:
        packed, grouped = int4_shapes(self.out_features, self.in_features)
        if self.packed.dtype != torch.uint8 or self.packed.shape != packed:
            raise ValueError("packed is uint8 (panels, groups * 4, 16, 4)")
        for part in (self.scales, self.offsets):
            if part.dtype != torch.float16 or part.shape != grouped:
                raise ValueError("scales and offsets are float16 (panels, groups, 16)")
        if not all(part.is_contiguous() for part in (self.packed, self.scales, self.offsets)):
            raise ValueError("packed, scales and offsets lie in this order")

    @property
    def groups(self) -> int:
        return self.scales.shape[1]

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.scales.nbytes + self.offsets.nbytes

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / (self.out_features * self.in_features)

    def dequantize(self) -> Tensor:
        """float32 (out, in)."""
        return self.rows(torch.arange(self.out_features, device=self.scales.device))

    def rows(self, index: Tensor) -> Tensor:
        """float32 (*index, in): only those rows."""
        bytes_ = rows_of(self.packed, index).view(*index.shape, self.groups, GROUP // 2)
        nibbles = torch.cat((bytes_ & 15, bytes_ >> 4), dim=-1)  # (*index, groups, 32)
        scales, offsets = (part[index // PANEL, :, index % PANEL].float() for part in (self.scales, self.offsets))
        weights = nibbles.float().mul_(scales[..., None]).add_(offsets[..., None])
        return weights.flatten(-2)[..., : self.in_features]


def in_panels(matrix: Tensor) -> Tensor:
    """Rows of bytes (out, 4 * units), laid out (panels, units, 16, 4)."""
    padded = F.pad(matrix, (0, 0, 0, -len(matrix) % PANEL))
    return padded.view(-1, PANEL, matrix.shape[1] // UNIT, UNIT).transpose(1, 2).contiguous()


def rows_of(panels: Tensor, index: Tensor) -> Tensor:
    """The rows of these numbers (*index, 4 * units) out of panels (panels, units, 16, 4)."""
    return panels[index // PANEL, :, index % PANEL].flatten(-2)


QuantizedWeight = Int8Weight | Int4Weight


def quantize_int8(weight: Tensor) -> Int8Weight:
    """The matrix (out, in) with each row's greatest magnitude at 127. Raises CheckpointError where it is not finite."""
    weight = finite(weight)
    scales = weight.abs().amax(dim=1) / 127
    steps = torch.where(scales > 0, scales, 1)
    values = weight.div(steps[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return Int8Weight(in_panels(F.pad(values, (0, -values.shape[1] % STEP))), scales, values.shape[1])


def quantize_int4(weight: Tensor) -> Int4Weight:
    """The matrix (out, in) with, in each group of 32, the grid of the least squared error among a few.

    The grids are the group's span, whole and cut at either end, and the symmetric one that 4-bit files use, so that
    those come back nearly as they were. The best is then fitted to the weights by least squares.
    Raises CheckpointError where a weight is not finite or beyond float16.
    """
    weight = finite(weight)
    out, in_features = weight.shape
    if weight.abs().amax() > torch.finfo(torch.float16).max:
        raise CheckpointError("a weight is beyond 65,504, which int4's offsets cannot hold; use int8")
    padded = F.pad(weight, (0, -in_features % GROUP))
    grouped = padded.reshape(-1, GROUP)
    coded = [quantize_groups(chunk) for chunk in torch.split(grouped, CHUNK)]
    packed, scales, offsets = (torch.cat(parts) for parts in zip(*coded, strict=True))
    scales, offsets = (by_panel(part.view(out, -1)) for part in (scales, offsets))
    return Int4Weight(in_panels(packed.view(out, -1)), scales, offsets, out, in_features)


def by_panel(parts: Tensor) -> Tensor:
    """Numbers of groups (out, groups), laid out (panels, groups, 16)."""
    padded = F.pad(parts, (0, 0, 0, -len(parts) % PANEL))
    return padded.view(-1, PANEL, parts.shape[1]).transpose(1, 2).contiguous()


def quantize_groups(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Groups (n, 32) of float32 to packed nibbles (n, 16), scales and offsets (n,)."""
    least, greatest = weights.amin(dim=1), weights.amax(dim=1)  # aminmax is slower
    span = greatest - least
    # The symmetric grid has the weight of greatest magnitude at -8 or 8 and zero on it.
    magnitude = torch.maximum(-least, greatest)
    symmetric = torch.where(greatest > -least, -7 / 8, -1.0) * magnitude
    grids = [((span + (end - begin) * span) / LEVELS, least + begin * span) for begin, end in GRIDS]
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for scales, offsets in [*grids, (magnitude / 8, symmetric)]:
        best = better(best, weights, scales, offsets)
    assert best is not None
    nibbles = coded(weights, best[1], best[2])
    best = better(best, weights, *fitted(weights, nibbles))
    nibbles = coded(weights, best[1], best[2]).to(torch.uint8)
    return nibbles[:, : GROUP // 2] | nibbles[:, GROUP // 2 :] << 4, best[1].half(), best[2].half()


def better(
    best: tuple[Tensor, Tensor, Tensor] | None, weights: Tensor, scales: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Per group (squared error, scale, offset), whichever errs less; scale and offset as float16 holds them."""
    scales, offsets = scales.clamp_min(LEAST_SCALE).half().float(), offsets.half().float()
    steps = in_steps(weights, scales, offsets)
    wrong = steps.round().clamp_(0, LEVELS).sub_(steps)
    errors = torch.linalg.vecdot(wrong, wrong) * scales * scales
    if best is None:
        return errors, scales, offsets
    less = errors < best[0]
    return torch.where(less, errors, best[0]), torch.where(less, scales, best[1]), torch.where(less, offsets, best[2])


def in_steps(weights: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
    """Weights (n, 32) as places on these grids, from 0 to 15 where they lie within."""
    return (weights - offsets[:, None]).mul_((1 / scales)[:, None])


def coded(weights: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
    """Numbers (n, 32) from 0 to 15 on these grids, in float32."""
    return in_steps(weights, scales, offsets).round_().clamp_(0, LEVELS)


def fitted(weights: Tensor, nibbles: Tensor) -> tuple[Tensor, Tensor]:
    """The scales and offsets (n,) that bring these nibbles nearest to the weights: ordinary least squares."""
    mean, mean_weight = nibbles.mean(dim=1), weights.mean(dim=1)
    centred = nibbles - mean[:, None]
    scales = torch.linalg.vecdot(centred, weights) / torch.linalg.vecdot(centred, centred).clamp_min(LEAST_SCALE)
    return scales, mean_weight - scales * mean


def finite(weight: Tensor) -> Tensor:
    """The matrix in float32. Raises CheckpointError for infinities and NaN."""
    weight = weight.detach().float().contiguous()  # some files store it transposed
    if not torch.isfinite(weight.sum()):
        raise CheckpointError("a weight is infinite or not a number, which cannot be quantised")
    return weight


class QuantizedLinear(nn.Module):
    """A projection with a quantised weight: the reference path, which dequantises and multiplies in float32."""

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None = None):
        super().__init__()
        self.weight = weight
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)

    @property
    def in_features(self) -> int:
        return self.weight.in_features

    @property
    def out_features(self) -> int:
        return self.weight.out_features

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), in the dtype of x."""
        return F.linear(x.float(), self.weight.dequantize(), self.bias).to(x.dtype)


class QuantizedEmbedding(nn.Module):
    """An embedding with a quantised weight, of which only the rows that are asked for are dequantised."""

    def __init__(self, weight: QuantizedWeight):
        super().__init__()
        self.weight = weight

    def forward(self, token_ids: Tensor) -> Tensor:
        """(...,) to (..., size), in float32."""
        return self.weight.rows(token_ids)


def quantize_model(model: Transformer, format: Format) -> None:  # noqa: A002  (the word for it everywhere)
    """Replace the weights of a loaded model, in place: see the head of this file. Raises CheckpointError."""
    for _ in quantizing(model, format):
        pass


def quantizing(model: Transformer, format: Format) -> Iterator[tuple[str, Tensor]]:  # noqa: A002
    """`quantize_model`, one weight at a time: each one's name and what it was."""
    quantize: Callable[[Tensor], QuantizedWeight] = quantize_int8 if format == "int8" else quantize_int4
    for name, module in matrices(model):
        weight = module.weight
        try:
            put(model, name, quantize(weight))
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from None
        yield name, weight
    model.float()


def matrices(model: Transformer) -> list[tuple[str, nn.Linear | nn.Embedding]]:
    """The modules whose weights are quantised, by name; a tied head goes with the embedding."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Embedding))
        and is_quantised(f"{name}.weight", tuple(module.weight.shape))
        and not (module is model.lm_head and model.config.tie_word_embeddings)
    ]


def put(model: Transformer, name: str, weight: QuantizedWeight) -> None:
    """Let the module of this name have a quantised weight, and a tied head with its embedding."""
    module = model.get_submodule(name)
    if isinstance(module, nn.Linear):
        model.set_submodule(name, QuantizedLinear(weight, module.bias))
        return
    model.set_submodule(name, QuantizedEmbedding(weight))
    if model.config.tie_word_embeddings:
        model.lm_head = QuantizedLinear(weight)  # type: ignore[assignment]

"""Direct logit attribution: logit(chosen) - logit(runner-up) as an exact sum over what was added to the residual
stream (Elhage et al. 2021, "A mathematical framework for transformer circuits").

A short convolution carries from positions as attention does: what it takes in of each, times its tap and its gate.
Gates, attention's too, and the scale of each norm are frozen at their values in this pass; then all from an update to
the logits is linear. Terms are summed in float64. The value bias of attention is part of each position's value; every
other bias is a term of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenglass.model.inspection.fork import ForkView, Recording, blocks, taps_of
from tokenglass.model.inspection.records import Component
from tokenglass.model.torch_engine.mixers import Attention, ShortConvolution
from tokenglass.model.torch_engine.modules import Norm
from tokenglass.model.torch_engine.transformer import Block, Scale, Transformer


@dataclass(frozen=True, slots=True)
class Split:
    """The terms; what each layer carried from each position (layers, positions); the weights of attention, in those
    that have it (layers with attention, positions)."""

    components: tuple[Component, ...]
    by_position: Tensor
    weights: Tensor


def split_logits(model: Transformer, recording: Recording, view: ForkView, pair: tuple[int, int]) -> Split:
    """The terms of logit(pair[0]) - logit(pair[1]), before a final soft cap."""
    chosen, runner_up = rows_of(model.lm_head, pair).double()
    scale = model.config.logit_scale or 1
    direction, final_bias = pull_back(model.model.norm, recording.residual[-1], (chosen - runner_up) * scale)
    components = [*embedding_terms(model, recording, view, direction * scales(model)[0])]
    by_position, weights = [], []
    final = direction
    for layer, (block, layer_scale) in enumerate(zip(blocks(model), scales(model), strict=True)):
        mixer, direction = block.mixer, final * layer_scale
        if isinstance(mixer, Attention):
            name, (carried, weight) = "attention", attention_terms(mixer, block, layer, recording, view, direction)
            weights.append(weight)
        else:
            assert isinstance(mixer, ShortConvolution), "nothing else keeps positions apart"
            name, carried = "convolution", convolution_terms(mixer, block, layer, recording, view, direction)
        by_position.append(carried)
        components.append(Component(f"{name} {layer + 1}", "attention", layer + 1, carried.sum().item()))
        components += bias_terms(block, layer, recording, direction)
        components.append(Component(f"MLP {layer + 1}", "mlp", layer + 1, mlp_term(block, layer, recording, direction)))
        if recording.token_input:
            logit = (direction @ recording.token_input[layer].double()).item()
            components.append(Component(f"token input {layer + 1}", "embedding", layer + 1, logit))
    if final_bias is not None:
        components.append(Component("final norm bias", "bias", None, final_bias))
    if model.lm_head.bias is not None:
        chosen, runner_up = model.lm_head.bias.double()[list(pair)]
        components.append(Component("head bias", "bias", None, scale * (chosen - runner_up).item()))
    return Split(tuple(components), torch.stack(by_position), torch.stack(weights or [torch.zeros_like(carried)]))


def scales(model: Transformer) -> list[float]:
    """For each layer, what everything that it adds is multiplied by until the final norm: the learned factors of the
    layer and of all behind it."""
    own = [1.0 if block.layer_scalar is None else block.layer_scalar.double().item() for block in blocks(model)]
    return [math.prod(own[layer:]) for layer in range(len(own))]


def embedding_terms(model: Transformer, recording: Recording, view: ForkView, direction: Tensor) -> list[Component]:
    """What the last token's embedding says directly, and apart from it its learned position."""
    start = recording.residual[0].double()
    positions = model.model.embed_positions
    if positions is None:
        return [Component("embedding", "embedding", None, (direction @ start).item())]
    learned = positions(view.positions[0, 0]).double() * (model.config.embedding_scale or 1)
    return [
        Component("embedding", "embedding", None, (direction @ (start - learned)).item()),
        Component("position embedding", "embedding", None, (direction @ learned).item()),
    ]


def pull_back(norm: nn.Module, x: Tensor, direction: Tensor) -> tuple[Tensor, float | None]:
    """The direction (hidden,) in a norm's input that `direction` in its output is, the scale frozen at its value for
    x (hidden,); and what its bias adds, None without one. Where there is no norm, the direction itself."""
    if isinstance(norm, Scale):
        return direction * norm.factor, None
    if not isinstance(norm, Norm):
        return direction, None
    x, weight = x.double(), 1 if norm.weight is None else norm.weight.double() + (norm.kind == "rms_plus_one")
    if norm.kind != "layer":
        return direction * weight * (x.square().mean() + norm.eps).rsqrt(), None
    pulled = direction * weight * (x.var(correction=0) + norm.eps).rsqrt()
    bias = None if norm.bias is None else (direction @ norm.bias.double()).item()
    return pulled - pulled.mean(), bias  # the mean of x is taken off, linearly


def convolution_terms(
    mixer: ShortConvolution, block: Block, layer: int, recording: Recording, view: ForkView, direction: Tensor
) -> Tensor:
    """What a convolution carried from each position to the logits, its gate frozen (positions,)."""
    by_channel, held = gated_direction(mixer, block, layer, recording, direction), view.fork.inputs[layer].double()
    steps = ((view.sees_back(back, held)[0], tap.double()) for back, tap in enumerate(taps_of(mixer.conv)))
    return torch.stack([sees * (held @ (by_channel * tap)) for sees, tap in steps]).sum(0)


def gated_direction(
    mixer: ShortConvolution, block: Block, layer: int, recording: Recording, direction: Tensor
) -> Tensor:
    """The direction in what a convolution gives (channels,) that `direction` is in the residual stream."""
    pulled, _ = pull_back(block.after_mixer, recording.attended[layer], direction)
    return pulled @ matrix(mixer.out_proj).double() * mixer.after_proj(recording.attention_input[layer]).double()


def attention_terms(
    attention: Attention, block: Block, layer: int, recording: Recording, view: ForkView, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """What attention carried from each position to the logits, and its mean weight over the heads, (positions,)."""
    direction, _ = pull_back(block.after_mixer, recording.attended[layer], direction)
    spec, x = attention.spec, recording.attention_input[layer]
    by_head = (direction @ matrix(attention.o_proj).double()).view(spec.num_heads, spec.head_dim)
    if spec.gate is not None:
        by_head = by_head * attention.opening(x).double()
    by_head = by_head.view(spec.num_kv_heads, -1, spec.head_dim)
    weights = attention_weights(attention, x, layer, view)  # (heads, slots)
    _, values = view.keys_values[spec.keys_layer(layer)]
    values = values[0].double()  # (kv_heads, slots, head_dim)
    carried = (by_head @ values.transpose(1, 2)).flatten(0, 1) * weights  # (heads, slots)
    evicted = torch.zeros(view.fork.start(spec.window), dtype=carried.dtype, device=carried.device)
    return torch.cat((evicted, carried.sum(0))), torch.cat((evicted, weights.mean(0)))


def attention_weights(attention: Attention, x: Tensor, layer: int, view: ForkView) -> Tensor:
    """The weights of the one query made from x (hidden,), (heads, slots) in float64."""
    spec = attention.spec
    query = attention.queries(x[None, None], view).double().view(spec.num_kv_heads, spec.group_size, spec.head_dim)
    keys, _ = view.keys_values[spec.keys_layer(layer)]
    products = query @ keys[0].double().transpose(1, 2) * spec.scale
    if spec.softcap is not None:
        products = spec.softcap * torch.tanh(products / spec.softcap)
    mask = view.sight(spec.window).mask
    assert isinstance(mask, Tensor)
    products = products.masked_fill(~mask[0], -torch.inf)
    if attention.sinks is None:
        return products.softmax(-1).flatten(0, 1)
    sinks = attention.sinks.double().view(*products.shape[:2], 1)
    return torch.cat((products, sinks), -1).softmax(-1)[..., :-1].flatten(0, 1)


def bias_terms(block: Block, layer: int, recording: Recording, direction: Tensor) -> list[Component]:
    """The terms of a layer that depend on no input: biases of the projections and of post norms."""
    terms: list[Component] = []
    mixer = block.mixer
    if isinstance(mixer, Attention):
        mixing, output = "attention", mixer.o_proj
    else:
        assert isinstance(mixer, ShortConvolution), "nothing else keeps positions apart"
        mixing, output = "convolution", mixer.out_proj
        if mixer.conv.bias is not None:
            by_channel = gated_direction(mixer, block, layer, recording, direction)
            logit = (by_channel @ mixer.conv.bias.double()).item()
            terms.append(Component(f"kernel {layer + 1} bias", "bias", layer + 1, logit))
    parts = (
        (mixing, block.after_mixer, recording.attended[layer], output.bias),
        ("MLP", block.after_mlp, recording.mlp[layer], block.mlp.bias),
    )
    for name, norm, x, bias in parts:
        pulled, norm_bias = pull_back(norm, x, direction)
        if bias is not None:
            logit = (pulled @ bias.double()).item()
            terms.append(Component(f"{name} {layer + 1} bias", "bias", layer + 1, logit))
        if norm_bias is not None:
            terms.append(Component(f"{name} {layer + 1} norm bias", "bias", layer + 1, norm_bias))
    return terms


def mlp_term(block: Block, layer: int, recording: Recording, direction: Tensor) -> float:
    """What the MLP added, without the bias of its projection."""
    pulled, _ = pull_back(block.after_mlp, recording.mlp[layer], direction)
    output = recording.mlp[layer].double()
    if block.mlp.bias is not None:
        output = output - block.mlp.bias.double()
    return (pulled @ output).item()


def matrix(linear: nn.Module) -> Tensor:
    """The weight (out, in) of a projection, dequantised where it is quantised."""
    weight: Any = linear.weight
    return weight if isinstance(weight, Tensor) else weight.dequantize()


def rows_of(linear: nn.Module, rows: tuple[int, ...]) -> Tensor:
    """Some rows of that weight (rows, in)."""
    index = torch.tensor(rows)
    weight: Any = linear.weight
    return weight[index.to(weight.device)] if isinstance(weight, Tensor) else weight.rows(index)

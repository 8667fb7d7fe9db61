"""Many rows over one shared prefix: the model's own layers, run on queries that each see the cache in another way.

The rows lie side by side as one sequence whose mask keeps them apart, so the prefix is read, never copied per row
(the tree attention of SpecInfer, Miao et al. 2023, arXiv 2305.09781).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tokenglass.model.engine.cache import KVCache
from tokenglass.model.torch_engine.attention import AttentionInputs, Sight
from tokenglass.model.torch_engine.storage import as_tensor
from tokenglass.model.torch_engine.transformer import Block, Transformer
from tokenglass.model.torch_engine.views import PassView


def device_of(cache: KVCache) -> torch.device:
    """Where the model's modules are, if they go with this cache."""
    return as_tensor(cache.rows[0].vectors(0)[0]).device


class Fork:
    """The end of the first `prefix` positions of one row of a cache, which is never written to.

    It stands where a cache does: each layer's new keys and values are put behind the prefix for this pass alone.
    """

    def __init__(self, cache: KVCache, row: int, prefix: int):
        self.cache = cache
        self.row = row
        self.prefix = prefix
        self.inputs: dict[int, Tensor] = {}  # of its convolutions, per layer (slots, channels)

    def start(self, window: int | None) -> int:
        """The position in slot 0 of the layers with this window."""
        return 0 if window is None else self.cache.rows[self.row].start

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefix and, behind them, of the pass (1, kv_heads, slots, head_dim)."""
        stored_keys, stored_values, start = self.cache.rows[self.row].layer(layer)
        prefixes = (as_tensor(stored)[None, :, : self.prefix - start] for stored in (stored_keys, stored_values))
        pairs = zip(prefixes, (keys, values), strict=True)
        all_keys, all_values = (torch.cat((prefix.to(new.dtype), new), dim=2) for prefix, new in pairs)
        return all_keys, all_values

    def write_inputs(self, layer: int, inputs: Tensor) -> Tensor:
        """What a convolution takes in, of the prefix and of the pass (rows, channels)."""
        (held,), _ = self.cache.rows[self.row].vectors(layer)
        prefix = as_tensor(held)[:, : self.prefix].transpose(0, 1).flatten(1)
        self.inputs[layer] = torch.cat((prefix.to(inputs.dtype), inputs))
        return self.inputs[layer]


class ForkView(PassView):
    """The view of rows at `positions` (rows,) which see the prefix and one another by `sees` (rows, prefix + rows).

    Causality and the layers' windows are applied on top of it.
    """

    def __init__(self, fork: Fork, positions: Tensor, sees: Tensor):
        self.fork = fork
        self.positions = positions[None]
        self.planned_length = fork.cache.rows[fork.row].planned_length
        self.tables = {}
        self.keys_values = {}
        self.sees = sees

    def attend(self, inputs: AttentionInputs) -> Tensor:
        if inputs.key_value is not None:
            inputs = replace(inputs, key_value=self.fork.extend(inputs.layer, *inputs.key_value))
        return super().attend(inputs)

    def convolve(self, layer: int, inputs: Tensor, conv: nn.Conv1d) -> Tensor:
        held = self.fork.write_inputs(layer, inputs[0])
        mixed = sum(self.sees_back(back, held) @ held * tap for back, tap in enumerate(taps_of(conv)))
        assert isinstance(mixed, Tensor)
        return mixed[None] if conv.bias is None else mixed[None] + conv.bias

    def sees_back(self, back: int, held: Tensor) -> Tensor:
        """One where a row sees the slot so many positions before its own, else nothing (rows, slots)."""
        slots = torch.cat((torch.arange(self.fork.prefix, device=held.device), self.positions[0]))
        return (self.sees & (slots == self.positions[0][:, None] - back)).to(held.dtype)

    def sight(self, window: int | None) -> Sight:
        start, queries = self.fork.start(window), self.positions[0][:, None]
        prefix = torch.arange(start, self.fork.prefix, device=queries.device)
        keys = torch.cat((prefix, self.positions[0]))
        mask = self.sees[:, start:] & (keys <= queries)
        if window is not None:
            mask = mask & (keys > queries - window)
        return Sight(mask[None, None])


def taps_of(conv: nn.Conv1d) -> Tensor:
    """The weights (taps, channels) of a convolution, that of the position itself first."""
    return conv.weight[:, 0].T.flip(0)


def blocks(model: Transformer) -> list[Block]:
    return cast(list[Block], list(model.model.layers))


def head(model: Transformer, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (..., vocab) of what left the final norm (..., hidden), before and after a final soft cap, in float32."""
    logits = model.uncapped_logits(hidden)
    cap = model.config.logit_softcap
    return logits.float(), (logits if cap is None else cap * torch.tanh(logits / cap)).float()


@dataclass(slots=True)
class Recording:
    """What the modules took and gave in a pass of one row, per layer (hidden,)."""

    residual: list[Tensor] = field(default_factory=list)  # what enters each layer, and what leaves the last
    attention_input: list[Tensor] = field(default_factory=list)
    attended: list[Tensor] = field(default_factory=list)  # by attention or a convolution, before a post norm
    mlp: list[Tensor] = field(default_factory=list)
    token_input: list[Tensor] = field(default_factory=list)  # of layers that take one in


@contextmanager
def record(model: Transformer) -> Iterator[Recording]:
    """Record the next pass, which has one row, by hooks that are gone afterwards."""
    taken = Recording()

    def on_block(_module: nn.Module, inputs: Any, output: Tensor) -> None:
        if not taken.residual:
            taken.residual.append(inputs[0][0, 0])
        taken.residual.append(output[0, 0])

    def on_attention(_module: nn.Module, inputs: Any, output: Tensor) -> None:
        taken.attention_input.append(inputs[0][0, 0])
        taken.attended.append(output[0, 0])

    def on_mlp(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        taken.mlp.append(output[0, 0])

    def on_token_input(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        taken.token_input.append(output[0, 0])

    hooks = [
        module.register_forward_hook(hook)
        for block in blocks(model)
        for module, hook in (
            *((block, on_block), (block.mixer, on_attention), (block.mlp, on_mlp)),
            *([(block.post_per_layer_input_norm, on_token_input)] if block.token_activation is not None else []),
        )
    ]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()

"""Attention: which positions a query may look at, and the weighted sum over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenglass.model.checkpoint import mixers

CAUSAL = "causal"


@dataclass(frozen=True, slots=True)
class Sight:
    """What the queries of a pass may look at: keys from slot `first` on, and of those the ones under `mask`.

    `mask` is true where a query may look, (batch, 1, length, slots); CAUSAL; or none when it may look everywhere.
    """

    mask: Tensor | str | None
    first: int = 0


def sight(
    positions: Tensor,
    start: int,
    slots: int,
    window: int | None,
    *,
    block: int = 0,
    hide: Tensor | None = None,
) -> Sight:
    """What queries at `positions` (batch, length), the same in every row, see of `slots` keys, the first at position
    `start`.

    A query sees itself and what is before it, `window` in all. The last `block` queries see each other as well,
    whatever their order. `hide` (batch, positions) is true where the queries of a row may not look.
    """
    length = positions.shape[1]
    if hide is None:
        if length == 1:
            return Sight(None, 0 if window is None else max(0, slots - window))
        if length == block and window is None:
            return Sight(None)
        if length == slots and block <= 1 and (window is None or slots <= window):
            return Sight(CAUSAL)
    keys = torch.arange(start, start + slots, device=positions.device).expand(len(positions), slots)
    last = positions.clone()
    if block:
        last[:, -block:] = positions[:, -1:]
    mask = keys[:, None] <= last[:, :, None]
    if window is not None:
        mask &= keys[:, None] > positions[:, :, None] - window
    if hide is not None:
        hidden = hide.gather(1, keys.clamp(max=hide.shape[1] - 1)) & (keys < hide.shape[1])
        mask &= ~hidden[:, None]
    return Sight(mask[:, None])


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """What the attention of one layer takes in: query heads share key-value heads.

    `sinks` (heads,) are logits of nothing that takes part in each softmax (Xiao et al. 2023, arXiv 2309.17453).
    """

    layer: int
    spec: mixers.Attention
    query: Tensor  # (batch, heads, length, head_dim)
    key_value: tuple[Tensor, Tensor] | None  # (batch, kv_heads, length, head_dim); None: another layer's are read
    sinks: Tensor | None

    @property
    def keys_layer(self) -> int:
        """The layer whose keys and values are read."""
        return self.spec.keys_layer(self.layer)

    def split(self, counts: Sequence[int]) -> list[AttentionInputs]:
        """Those of each sequence, of so many positions each, that lie side by side as one."""
        parts = (torch.split(x, list(counts), 2) for x in (self.query, *(self.key_value or ())))
        return [
            replace(self, query=query, key_value=(rest[0], rest[1]) if rest else None)
            for query, *rest in zip(*parts, strict=True)
        ]


def attend(inputs: AttentionInputs, key: Tensor, value: Tensor, seen: Sight) -> Tensor:
    """What the queries get (batch, heads, length, head_dim) from the values that they may look at; keys and values are
    (batch, kv_heads, slots, head_dim).

    Without a scale the products are divided by sqrt(head_dim); a soft cap bounds them by cap * tanh(x / cap).
    """
    query, sinks = inputs.query, inputs.sinks
    scale, softcap = inputs.spec.scale, inputs.spec.softcap
    batch, heads, length, head_dim = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    mask = seen.mask
    if seen.first:
        key, value = key[:, :, seen.first :], value[:, :, seen.first :]
    if isinstance(mask, str):
        if softcap is None and sinks is None:
            key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
            return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()[None, None]
    # The queries of a group become extra rows of one attention, so that the cache is never copied.
    query = query.reshape(batch, kv_heads, group * length, head_dim)
    if mask is not None:
        mask = mask.repeat(1, 1, group, 1)
    if sinks is not None:
        sink = sinks.view(kv_heads, group, 1).expand(kv_heads, group, length).reshape(kv_heads, -1, 1)
        mixed = attention_with_sinks(query, key, value, mask, head_dim**-0.5 if scale is None else scale, sink)
    elif softcap is None:
        mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    else:
        mixed = capped_attention(query, key, value, mask, head_dim**-0.5 if scale is None else scale, softcap)
    return mixed.view(batch, heads, length, head_dim)


def attention_with_sinks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, sinks: Tensor
) -> Tensor:
    """Attention in float32, where one more logit of each query, `sinks` (kv_heads, queries, 1), has no value."""
    products = query.float() @ key.float().transpose(2, 3) * scale
    if mask is not None:
        products = products.masked_fill(~mask, -torch.inf)
    sink = sinks.float().expand(len(products), *sinks.shape)
    return torch.cat((products, sink), -1).softmax(dim=-1)[..., :-1].to(value.dtype) @ value


def capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float
) -> Tensor:
    """Attention whose products are bounded before the softmax (Gemma 2, arXiv 2408.00118), in float32."""
    products = query.float() @ key.float().transpose(2, 3) * scale
    products = softcap * torch.tanh(products / softcap)
    if mask is not None:
        products = products.masked_fill(~mask, -torch.inf)
    return products.softmax(dim=-1).to(value.dtype) @ value

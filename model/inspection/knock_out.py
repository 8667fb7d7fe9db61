"""Knock-out: what the choice would be if one earlier position could not be looked at (Geva et al. 2023, arXiv
2304.14767, "Dissecting recall of factual associations")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenglass.model.engine.cache import KVCache
from tokenglass.model.inspection.fork import Fork, ForkView, device_of, head
from tokenglass.model.inspection.lens import divergence_bits
from tokenglass.model.inspection.records import Effect
from tokenglass.model.torch_engine.transformer import Transformer

ROWS = 128  # positions hidden in one pass, each in a row of its own


def direct_effects(
    model: Transformer, cache: KVCache, row: int, token_ids: Sequence[int], chosen: int, hidden: Sequence[int]
) -> dict[int, Effect]:
    """Hide each of the `hidden` positions, one at a time, from the last of `token_ids`, in every layer.

    The cache's row holds the positions before the last. Later positions have read the hidden one: what it did through
    them stays, hence "direct". A position outside of every layer's window is not looked at; hiding it does exactly
    nothing, and is not computed.
    """
    last = len(token_ids) - 1
    windows = [kind.window for kind in model.config.layers]
    sees_from = 0 if None in windows else max(0, last + 1 - max(window or 0 for window in windows))
    effects = {position: Effect(0.0, 0.0) for position in hidden if position < sees_from}
    seen = [position for position in hidden if position >= sees_from]
    for start in range(0, len(seen), ROWS):
        part = seen[start : start + ROWS]
        logits = logits_without(model, cache, row, token_ids, part)
        effects.update(zip(part, effects_of(logits[0], logits[1:], chosen), strict=True))
    return effects


def logits_without(
    model: Transformer, cache: KVCache, row: int, token_ids: Sequence[int], hidden: Sequence[int]
) -> Tensor:
    """Logits (1 + hidden, vocab) after the last of `token_ids`: as it is, then without each hidden position."""
    last, rows, device = len(token_ids) - 1, len(hidden) + 1, device_of(cache)
    prefix = torch.ones(rows, last, dtype=torch.bool, device=device)
    prefix[torch.arange(1, rows), list(hidden)] = False
    own = torch.eye(rows, dtype=torch.bool, device=device)
    positions = torch.full((rows,), last, device=device)
    view = ForkView(Fork(cache, row, last), positions, torch.cat((prefix, own), dim=1))
    copies = torch.full((1, rows), token_ids[-1], device=device)
    return head(model, model.model(copies, view))[1][0]


def total_effect(
    model: Transformer, cache: KVCache, row: int, token_ids: Sequence[int], chosen: int, hidden: int, logits: Tensor
) -> Effect:
    """Hide one position from everything after it: all later positions are computed anew, as if it had never been read.

    Position numbers are kept, so nothing else moves. `logits` (vocab,) are those with the position in sight. In layers
    with a window the cache must hold the positions before the hidden one.
    """
    device = device_of(cache)
    positions = torch.arange(hidden + 1, len(token_ids), device=device)
    sees = torch.ones(len(positions), hidden + len(positions), dtype=torch.bool, device=device)
    view = ForkView(Fork(cache, row, hidden), positions, sees)
    later = torch.tensor([token_ids[hidden + 1 :]], device=device)
    without = head(model, model.model(later, view)[:, -1:])[1][0]
    return effects_of(logits, without, chosen)[0]


def effects_of(logits: Tensor, without: Tensor, chosen: int) -> list[Effect]:
    """Effects from logits (vocab,) as they are and those without each position (rows, vocab)."""
    logprobs, others = logits.double().log_softmax(-1), without.double().log_softmax(-1)
    lost = divergence_bits(logprobs, others).tolist()
    changes = (others[:, chosen] - logprobs[chosen]).tolist()
    return [Effect(kl, change) for kl, change in zip(lost, changes, strict=True)]

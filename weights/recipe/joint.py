"""The joint objective: one set of weights that predicts the next token and fills in blocks of masks.

The model reads a text twice in one pass, `[clean copy | noised copy]`, both at the positions 0 .. length - 1, as in
Set Block Decoding (Gat et al. 2025, arXiv 2509.04185) with the mask of BD3-LM (Arriola et al. 2025, arXiv 2503.09573),
whose clean half is causal token by token here:

- a clean token sees the clean tokens up to itself, as in any causal model: the clean half alone is the ordinary model;
- a noised token of the block that begins at position s sees the clean tokens before s and its whole own block.

**Indices.** One head serves both halves because both predict shifted by one: the hidden state at position i predicts
token i + 1. A block of `size` inputs s .. s + size - 1 therefore predicts tokens s + 1 .. s + size. Its first input is
never masked (when decoding it is the last token known), and the prediction at i is unknown to the block, a target of
the masked loss, where input i + 1 is masked. The last prediction, token s + size, has no input in its own block: it is
always unknown, and no other prediction of the block can be made to agree with it. A block of one input has no mask
and sees what a causal token sees: there both halves are the same, and decoding with blocks of one is autoregressive.

**Weights.** In a block with k of its size - 1 inputs masked, k uniform, each masked target weighs 1/t, t = k / (size -
1); the last target weighs 1. The mean over all positions is then an estimate of the nats per token that filling blocks
in random order takes (LLaDA, Nie et al. 2025, arXiv 2502.09992, equation 14).

**Ends.** Decoding reveals the first masked place in every pass, and drafts are read up to the first wrong one. So in
training every other block has its last k inputs masked, and all its k + 1 targets weigh the same, `size` in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenglass.model.torch_engine.attention import Sight
from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.model.torch_engine.views import PassView

GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, cover a stretch evenly


@dataclass(frozen=True, slots=True)
class Noise:
    """Which inputs are masked, which predictions are targets, and what each weighs; all (rows, length)."""

    masked: Tensor
    unknown: Tensor
    weights: Tensor


def draw_noise(rows: int, length: int, size: int, generator: torch.Generator, *, ends: bool = False) -> Noise:
    """Noise for rows of whole blocks of `size`; the shares of masks are spread evenly over the blocks.

    The masks of a block are at random, or with `ends` in every other block at its end.
    """
    blocks = rows * length // size
    shares = (torch.rand(1, generator=generator) + torch.arange(blocks) * GOLDEN) % 1.0
    counts = 1 + (shares * (size - 1)).long()[:, None]  # 1 .. size - 1 masks
    at_end = torch.arange(blocks)[:, None] % 2 < int(ends)
    order = torch.rand(blocks, size - 1, generator=generator).argsort(dim=1).argsort(dim=1)
    order = torch.where(at_end, torch.arange(size - 2, -1, -1), order)
    hidden = order < counts  # of the inputs after the first
    edge = torch.ones(blocks, 1, dtype=torch.bool)
    unknown = torch.cat((hidden, edge), dim=1)
    inner, last = torch.where(at_end, size / (counts + 1), (size - 1) / counts), torch.ones(blocks, 1)
    weights = torch.cat((hidden * inner, torch.where(at_end, inner, last)), dim=1)
    return Noise(
        masked=torch.cat((~edge, hidden), dim=1).view(rows, length),
        unknown=unknown.view(rows, length),
        weights=weights.view(rows, length),
    )


def all_masked(rows: int, length: int, size: int) -> Noise:
    """Noise that hides all of every block but its first input, every target weighing the same."""
    masked = (torch.arange(length) % size > 0).expand(rows, length)
    everything = torch.ones(rows, length, dtype=torch.bool)
    return Noise(masked=masked, unknown=everything, weights=everything.float())


def joint_mask(length: int, size: int) -> Tensor:
    """What the inputs [clean | noised] see of each other: (2 * length, 2 * length), true where a row sees a column."""
    position = torch.arange(length).repeat(2)
    noised = torch.arange(2 * length) >= length
    start = position - position % size  # of the block
    causal = ~noised[:, None] & ~noised & (position <= position[:, None])
    past = noised[:, None] & ~noised & (position < start[:, None])
    own = noised[:, None] & noised & (start == start[:, None])
    return causal | past | own


class JointView(PassView):
    """A pass over [clean | noised]: both halves at the same positions, seeing what joint_mask says."""

    def __init__(self, token_ids: Tensor, size: int):
        super().__init__(token_ids)
        batch, both = token_ids.shape
        self.planned_length = both // 2
        self.positions = torch.arange(both // 2).repeat(2).expand(batch, both)
        self.seen = Sight(joint_mask(both // 2, size)[None, None])

    def sight(self, window: int | None) -> Sight:  # noqa: ARG002  (the bundled model has no windows)
        return self.seen


def joint_losses(model: Transformer, rows: Tensor, size: int, noise: Noise, mask_id: int) -> tuple[Tensor, Tensor]:
    """Nats per token of rows (rows, length + 1): of the next token, and of the masked ones."""
    clean, noised = joint_states(model, rows, size, noise, mask_id)
    targets = rows[:, 1:]
    next_token = F.cross_entropy(model.lm_head(clean).flatten(0, 1), targets.flatten())
    return next_token, masked_loss(model, noised, targets, noise)


def joint_states(model: Transformer, rows: Tensor, size: int, noise: Noise, mask_id: int) -> tuple[Tensor, Tensor]:
    """Hidden states of the clean and of the noised half, each (rows, length, hidden)."""
    inputs = rows[:, :-1]
    both = torch.cat((inputs, inputs.masked_fill(noise.masked, mask_id)), dim=1)
    clean, noised = model.model(both, JointView(both, size)).chunk(2, dim=1)
    return clean, noised


def masked_loss(model: Transformer, noised: Tensor, targets: Tensor, noise: Noise) -> Tensor:
    """Nats per token of filling blocks, from the noised half's hidden states and its targets (rows, length)."""
    each = F.cross_entropy(model.lm_head(noised[noise.unknown]), targets[noise.unknown], reduction="none")
    return (each * noise.weights[noise.unknown]).sum() / targets.numel()

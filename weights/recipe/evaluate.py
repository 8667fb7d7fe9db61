"""Held-out bits per byte of the next token, and nats per token of blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.weights.recipe.joint import all_masked, draw_noise, joint_losses
from tokenglass.weights.recipe.vocabulary import MASK_ID


@torch.inference_mode()
def bits_per_byte(model: Transformer, tokenizer: Tokenizer, texts: Iterable[str], stride: int = 512) -> float:
    """Bits the model needs per byte of whole documents, end token included.

    Windows of the model's context advance by `stride`, so a token far into a document has at least
    `context - stride` tokens before it.
    """
    context = model.config.max_positions
    end = model.config.eos_token_ids[0]
    nats, nbytes = 0.0, 0
    for text in texts:
        ids = torch.tensor([*tokenizer.encode(text).ids, end])  # begins with the start token
        nbytes += len(text.encode())
        done = 0
        while done < len(ids) - 1:
            start = max(0, done - (context - stride)) if done else 0
            stop = min(len(ids) - 1, start + context)
            losses = F.cross_entropy(model(ids[None, start:stop])[0], ids[start + 1 : stop + 1], reduction="none")
            nats += losses[done - start :].double().sum().item()
            done = stop
    return nats / math.log(2) / nbytes


@dataclass(frozen=True, slots=True)
class BlockLosses:
    """Nats per token of the same text, predicted in three ways."""

    next_token: float
    any_order: float  # blocks filled one place at a time, in random order (an estimate)
    at_once: float  # every place of a block by itself


@torch.inference_mode()
def block_losses(model: Transformer, rows: Tensor, size: int) -> BlockLosses:
    """The losses of rows (rows, length + 1), length being whole blocks of `size`."""
    count, length = rows.shape[0], rows.shape[1] - 1
    next_token, any_order = joint_losses(
        model, rows, size, draw_noise(count, length, size, torch.Generator().manual_seed(0)), MASK_ID
    )
    _, at_once = joint_losses(model, rows, size, all_masked(count, length, size), MASK_ID)
    return BlockLosses(next_token.item(), any_order.item(), at_once.item())


def held_out_rows(tokenizer: Tokenizer, texts: Iterable[str], rows: int, length: int) -> Tensor:
    """Documents one after the other, each behind the end token, cut into (rows, length + 1)."""
    ids: list[int] = []
    for text in texts:
        ids.extend(tokenizer.encode(text).ids)
        if len(ids) >= rows * (length + 1):
            break
    return torch.tensor(ids[: len(ids) // (length + 1) * (length + 1)]).view(-1, length + 1)[:rows]

"""Held-out bits per byte."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from model.transformer import Transformer


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

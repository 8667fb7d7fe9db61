"""Dropout (Srivastava et al. 2014), where transformers have it (Vaswani et al. 2017, section 5.4)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

PLACES = ("embed_tokens", "o_proj", "down_proj")  # what the hidden state begins with, and what the layers add to it


def add_dropout(model: nn.Module, share: float) -> None:
    """While it trains, a model loses this share of the numbers in PLACES, others at every pass."""

    def drop(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return F.dropout(output, share, module.training)

    for name, module in model.named_modules():
        if name.endswith(PLACES):
            module.register_forward_hook(drop)

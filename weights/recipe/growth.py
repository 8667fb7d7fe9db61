"""Grow a trained model into a larger one that computes the same (as Net2Net, Chen et al. 2016, arXiv 1511.05641)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tokenglass.model.torch_engine.transformer import Transformer


@torch.no_grad()
def grow(model: Transformer, weights: Mapping[str, Tensor]) -> None:
    """Put smaller `weights` into the corner of each of a new model's tensors.

    What the new model adds changes nothing yet: the matrices that write into the residual stream begin as zeros (see
    new_model), so do the embedding's new columns; norms divide by a smaller root mean square, which their weights take
    back. Heads must stay in groups of the same size, so that new ones come after the old.
    """
    width, old_width = model.config.hidden_size, weights["model.norm.weight"].shape[0]
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name == "model.embed_tokens.weight":
            parameter.fill_(parameter.ndim == 1)
        if name in weights:
            old = weights[name].to(parameter.dtype)
            if parameter.ndim == 1:
                old = old * (old_width / width) ** 0.5
            parameter[tuple(slice(size) for size in old.shape)] = old

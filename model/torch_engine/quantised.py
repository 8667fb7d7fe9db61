"""Modules that hold weights of 8 or 4 bits: the reference path, which dequantises and multiplies in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenglass.model.checkpoint.quantised import QuantizedWeight
from tokenglass.model.torch_engine.transformer import Transformer


class QuantizedLinear(nn.Module):
    """A projection with a quantised weight, whose parts are tensors."""

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
        bias = None if self.bias is None else self.bias.float()
        return F.linear(x.float(), self.weight.dequantize(), bias).to(x.dtype)


class QuantizedEmbedding(nn.Module):
    """An embedding with a quantised weight, of which only the rows that are asked for are dequantised."""

    def __init__(self, weight: QuantizedWeight, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.weight = weight
        self.dtype = dtype

    def forward(self, token_ids: Tensor) -> Tensor:
        """(...,) to (..., size), in the dtype that the model computes in."""
        rows: Tensor = self.weight.rows(token_ids)
        return rows.to(self.dtype)


def put_quantised(model: Transformer, name: str, weight: QuantizedWeight, dtype: torch.dtype = torch.float32) -> None:
    """Let the module whose weight has this name hold a quantised one, and a tied head its embedding's.

    The rows of an embedding come in `dtype`.
    """
    module_name = name.removesuffix(".weight")
    module = model.get_submodule(module_name)
    if isinstance(module, nn.Linear):
        model.set_submodule(module_name, QuantizedLinear(weight, module.bias))
        return
    model.set_submodule(module_name, QuantizedEmbedding(weight, dtype))
    if model.blueprint.tied:
        model.lm_head = QuantizedLinear(weight)  # type: ignore[assignment]  # another kind of module

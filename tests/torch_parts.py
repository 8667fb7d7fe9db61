"""Engines, weights and caches for tests that compute with torch tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tokenglass.model.checkpoint.arrays import BFLOAT16
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised import QuantizedWeight, quantize
from tokenglass.model.checkpoint.quantised_layout import Format
from tokenglass.model.checkpoint.weights import Weights, read_weights
from tokenglass.model.progress import finish
from tokenglass.model.torch_engine.engine import TorchEngine, load_torch
from tokenglass.model.torch_engine.quantised import QuantizedEmbedding, QuantizedLinear, put_quantised
from tokenglass.model.torch_engine.storage import as_tensor as share
from tokenglass.model.torch_engine.transformer import Transformer

__all__ = ["as_array", "as_tensor", "load_engine", "quantize_model", "weights_of"]


def as_tensor(array: Any) -> torch.Tensor:
    """The same memory as a tensor; the logits of rows that have as many each, (rows, positions, vocab)."""
    return torch.stack([as_tensor(row) for row in array]) if isinstance(array, list) else share(array)


class ReadEngine(TorchEngine):
    """An engine, and notes on what of its checkpoint is not used."""

    notes: tuple[str, ...]


def load_engine(checkpoint: Checkpoint, *, dtype: str, device: str) -> ReadEngine:
    content = finish(read_weights(checkpoint, dtype=dtype))
    loaded = load_torch(content.blueprint, content.weights, device, dtype, torch.get_num_threads())
    engine = ReadEngine(loaded.model, loaded.device, loaded.dtype)
    engine.notes = content.notes
    return engine


def as_array(tensor: torch.Tensor) -> Any:
    """The same memory as a numpy array."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def weights_of(model: Transformer) -> Weights:
    """The weights of modules, by the blueprint's names."""
    weights: Weights = {
        name: as_array(tensor) for name, tensor in model.state_dict().items() if name in model.blueprint.shapes
    }
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear | QuantizedEmbedding) and f"{name}.weight" in model.blueprint.shapes:
            weights[f"{name}.weight"] = module.weight.with_parts(as_array)
    return weights


def quantize_model(model: Transformer, format: Format) -> None:  # noqa: A002  (the word for it everywhere)
    """Replace the weights of a model, in place."""
    for name in sorted(model.blueprint.quantisable):
        module = model.get_submodule(name.removesuffix(".weight"))
        stored = model.blueprint.format_of(name, format)
        assert stored is not None
        put_quantised(model, name, quantize_module(module, stored))
    model.float()


def quantize_module(module: Any, format: Format) -> QuantizedWeight:  # noqa: A002
    assert isinstance(module, nn.Linear | nn.Embedding)
    return quantize_tensor(module.weight, format)


def quantize_tensor(weight: torch.Tensor, format: Format) -> QuantizedWeight:  # noqa: A002
    """A weight whose parts are tensors."""
    return quantize(as_array(weight), format).with_parts(torch.from_numpy)

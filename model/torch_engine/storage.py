"""The key-value cache as a forward pass of torch writes and reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenglass.model.checkpoint.arrays import BFLOAT16
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.engine.cache import CacheRow, KVCache
from tokenglass.model.engine.keys_values import Storage


class TensorCache(KVCache):
    """A cache whose storage is tensors of this dtype, on this device."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        rows: int = 1,
        limit: int,
        dtype: torch.dtype,
        device: torch.device,
        planned_length: int | None = None,
    ):
        def zeros(shape: tuple[int, ...], dtype: torch.dtype = dtype) -> Tensor:
            with torch.inference_mode(False):  # what is made within can be written to outside of a pass too
                return torch.zeros(shape, dtype=dtype, device=device)

        def floats(shape: tuple[int, ...]) -> Tensor:
            return zeros(shape, torch.float32)

        storage = Storage(zeros, floats=floats)
        super().__init__(config, rows=rows, limit=limit, storage=storage, planned_length=planned_length)
        self.device = device

    def to_numpy(self, array: Tensor) -> NDArray[Any]:
        held = array.cpu()
        return held.view(torch.int16).numpy().view(BFLOAT16) if held.dtype == torch.bfloat16 else held.numpy()

    def from_numpy(self, array: NDArray[Any]) -> Tensor:
        return as_tensor(array).to(self.device)


def as_tensor(array: Any) -> Tensor:
    """The same memory as a tensor; a tensor as it is."""
    if isinstance(array, Tensor):
        return array
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def write(row: CacheRow, layer: int, keys: Tensor, values: Tensor) -> None:
    """Store keys and values (1, kv_heads, count, head_dim) of a row's next positions."""
    all_keys, all_values, start = row.layer(layer)
    here = slice(row.length - start, row.length - start + keys.shape[2])
    all_keys[:, here] = keys[0]
    all_values[:, here] = values[0]


def read(row: CacheRow, layer: int, count: int) -> tuple[Tensor, Tensor, int]:
    """Keys and values (1, kv_heads, slots, head_dim) of a row up to its next `count` positions, which are stored, and
    the position that these begin with."""
    keys, values, start = row.layer(layer)
    end = row.length - start + count
    return keys[None, :, :end], values[None, :, :end], start


def write_inputs(row: CacheRow, layer: int, inputs: Tensor, before: int) -> Tensor:
    """Store what a convolution takes in (1, count, channels) at a row's next positions; that, behind as many positions
    `before` it (1, before + count, channels)."""
    held, start = row.vectors(layer)
    begin, count = row.length - start, inputs.shape[1]
    (heads, _, size) = held[0].shape
    held[0, :, begin : begin + count] = inputs[0].view(count, heads, size).transpose(0, 1)
    return held[0, :, begin - before : begin + count].transpose(0, 1).reshape(1, before + count, heads * size)

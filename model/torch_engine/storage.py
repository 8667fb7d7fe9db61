"""The key-value cache as a forward pass of torch writes and reads it."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.engine.cache import KVCache


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
        def zeros(shape: tuple[int, ...]) -> Tensor:
            with torch.inference_mode(False):  # what is made within can be written to outside of a pass too
                return torch.zeros(shape, dtype=dtype, device=device)

        super().__init__(config, rows=rows, limit=limit, zeros=zeros, planned_length=planned_length)
        self.device = device

    def next_positions(self, count: int) -> Tensor:
        """The numbers of the next `count` positions of every row (rows, count)."""
        starts = torch.tensor(self.lengths, device=self.device)
        return starts[:, None] + torch.arange(count, device=self.device)

    def write(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store (rows, kv_heads, count, head_dim) at `positions`; everything up to the longest row's end."""
        count = keys.shape[2]
        starts, end, uniform = self.read_by(self.window if self.slides[layer] else None, count)
        for store, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if uniform:
                store[:, :, end - count : end] = new
            else:
                slots = positions - torch.tensor(starts, device=positions.device)[:, None]
                store.scatter_(2, slots[:, None, :, None].expand_as(new), new)
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

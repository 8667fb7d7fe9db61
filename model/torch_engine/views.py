"""What the layers of one forward pass share: positions, rotary tables, what may be looked at, and the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.cache import CacheRow
from tokenglass.model.torch_engine.attention import AttentionInputs, Sight, attend, sight
from tokenglass.model.torch_engine.delta import GatedDeltaNet
from tokenglass.model.torch_engine.rope import rotary_cosines
from tokenglass.model.torch_engine.storage import TensorCache, read, write, write_inputs


class PassView:
    """What the layers of one forward pass share: positions, rotary tables, and what may be looked at."""

    token_rows: Tensor | None = None  # (batch, length, layers, size), of models that have embeddings of each layer

    def __init__(
        self, token_ids: Tensor, planned_length: int | None = None, block: int = 0, hide: Tensor | None = None
    ):
        batch, length = token_ids.shape
        self.block = block
        self.hide = hide
        self.tables: dict[Rope, tuple[Tensor, Tensor]] = {}
        self.sights: dict[int | None, Sight] = {}
        self.keys_values: dict[int, tuple[Tensor, Tensor]] = {}  # of each layer, for those that read another's
        self.positions = torch.arange(length, device=token_ids.device).expand(batch, length)
        self.planned_length = length if planned_length is None else planned_length

    def rotary(self, rope: Rope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines (batch, 1, length, rope.dim)."""
        if rope not in self.tables:
            self.tables[rope] = rotary_cosines(rope, self.positions, self.planned_length, dtype)
        return self.tables[rope]

    def sight(self, window: int | None) -> Sight:
        """What layers with this window see."""
        if window not in self.sights:
            slots = self.positions.shape[1]
            self.sights[window] = sight(self.positions, 0, slots, window, block=self.block, hide=self.hide)
        return self.sights[window]

    def attend(self, inputs: AttentionInputs) -> Tensor:
        """What a layer's queries get (batch, heads, length, head_dim) from the values that they may look at."""
        if inputs.key_value is not None:
            self.keys_values[inputs.layer] = inputs.key_value
        return attend(inputs, *self.keys_values[inputs.keys_layer], self.sight(inputs.spec.window))

    def convolve(self, layer: int, inputs: Tensor, conv: nn.Conv1d) -> Tensor:  # noqa: ARG002
        """What a layer's convolution makes of its inputs (batch, length, channels) and those before them."""
        if self.hide is not None:
            inputs = inputs.masked_fill(self.hide[:, : inputs.shape[1], None], 0)
        return convolve(inputs, 0, conv)

    def recur(self, layer: int, inputs: Sequence[Tensor], mixer: GatedDeltaNet) -> Tensor:  # noqa: ARG002
        """What a recurrence makes of its inputs, each (batch, length, ...)."""
        return mixer.fold(inputs, None)[0]


class RowsView(PassView):
    """A pass that goes on with the rows of a cache: their new positions lie side by side as one sequence, and only
    attention takes each row by itself."""

    def __init__(self, cache: TensorCache, counts: Sequence[int], blocks: Sequence[int]):
        cache.reserve(counts)
        rows = zip(cache.rows, counts, blocks, strict=True)
        self.parts = [RowPart(row, count, block, cache.device) for row, count, block in rows if count]
        self.counts = [part.count for part in self.parts]
        self.positions = torch.cat([part.positions for part in self.parts], 1)
        self.tables = {}

    def rotary(self, rope: Rope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if rope not in self.tables:
            cosines, sines = zip(
                *(rotary_cosines(rope, part.positions, part.row.planned_length, dtype) for part in self.parts),
                strict=True,
            )
            self.tables[rope] = torch.cat(cosines, 2), torch.cat(sines, 2)
        return self.tables[rope]

    def attend(self, inputs: AttentionInputs) -> Tensor:
        if len(self.parts) == 1:
            return self.parts[0].attend(inputs)
        of_rows = zip(self.parts, inputs.split(self.counts), strict=True)
        return torch.cat([part.attend(new) for part, new in of_rows], 2)

    def convolve(self, layer: int, inputs: Tensor, conv: nn.Conv1d) -> Tensor:
        of_rows = zip(self.parts, torch.split(inputs, self.counts, 1), strict=True)
        return torch.cat([part.convolve(layer, new, conv) for part, new in of_rows], 1)

    def recur(self, layer: int, inputs: Sequence[Tensor], mixer: GatedDeltaNet) -> Tensor:
        of_rows = zip(self.parts, *(torch.split(each, self.counts, 1) for each in inputs), strict=True)
        return torch.cat([part.recur(layer, new, mixer) for part, *new in of_rows], 1)


class RowPart:
    """The new positions of one row in a pass."""

    def __init__(self, row: CacheRow, count: int, block: int, device: torch.device):
        self.row = row
        self.count = count
        self.block = block
        self.positions = torch.arange(row.length, row.length + count, device=device)[None]
        self.sights: dict[int | None, Sight] = {}

    def attend(self, inputs: AttentionInputs) -> Tensor:
        """Store the keys and values (1, kv_heads, count, head_dim), and let the queries read all of the row."""
        if inputs.key_value is not None:
            write(self.row, inputs.layer, *inputs.key_value)
        key, value, start = read(self.row, inputs.keys_layer, self.count)
        window = inputs.spec.window
        if window not in self.sights:
            self.sights[window] = sight(self.positions, start, key.shape[2], window, block=self.block)
        return attend(inputs, key, value, self.sights[window])

    def convolve(self, layer: int, inputs: Tensor, conv: nn.Conv1d) -> Tensor:
        """Store the inputs (1, count, channels), and convolve them with those before them."""
        before = min(self.row.length, conv.kernel_size[0] - 1)
        return convolve(write_inputs(self.row, layer, inputs, before), before, conv)

    def recur(self, layer: int, inputs: Sequence[Tensor], mixer: GatedDeltaNet) -> Tensor:
        """Go on from the row's state, and store the next."""
        state, target = self.row.recurrent(layer)
        mixed, after = mixer.fold(inputs, None if state is None else state[None])
        target.copy_(after[0])
        return mixed


def convolve(inputs: Tensor, before: int, conv: nn.Conv1d) -> Tensor:
    """The convolution (batch, length, channels) of inputs (batch, before + length, channels); before them are zeros."""
    padded = F.pad(inputs, (0, 0, conv.kernel_size[0] - 1 - before, 0))
    convolved: Tensor = conv(padded.transpose(1, 2))
    return convolved.transpose(1, 2)

"""Decode steps of one row over storage that stays where it is: what differs between two of them is four numbers on the
device, so that on a GPU a CUDA graph makes each step (docs.pytorch.org, "CUDA Graphs")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.cache import CacheRow
from tokenglass.model.engine.engine import Rows
from tokenglass.model.engine.keys_values import KeysValues
from tokenglass.model.torch_engine.attention import AttentionInputs, Sight, attend
from tokenglass.model.torch_engine.feed_forwards import MLP, Xielu
from tokenglass.model.torch_engine.mixers import Attention
from tokenglass.model.torch_engine.modules import Norm
from tokenglass.model.torch_engine.rope import Frequencies
from tokenglass.model.torch_engine.storage import TensorCache
from tokenglass.model.torch_engine.transformer import Block, Decoder, Scale, Transformer
from tokenglass.model.torch_engine.views import PassView

STATIC = {Transformer, Decoder, Block, Attention, MLP, Norm, Scale, Xielu, nn.ModuleList, nn.Linear, nn.Embedding}
ID, POSITION, STARTS = 0, 1, 2  # places of a step's numbers: its token, its position, where each group's slots begin


def is_static(model: Transformer) -> bool:
    """Whether a step asks nothing of the host: quantised weights, split ones and experts may. Layers that read what
    others keep, and tables on the disk, are not among what is built for it."""
    shares = any(kind.source is not None for kind in model.config.layers)
    has_rows = model.blueprint.token_rows is not None
    return not (shares or has_rows) and all(type(module) in STATIC for module in model.modules())


def single_step(rows: Rows) -> int | None:
    """The only row that takes part in a pass, where that has one new token."""
    if sum(rows.counts) != 1:
        return None
    row = rows.counts.index(1)
    return row if rows.outputs[row] == 1 else None


class StaticSteps:
    """The steps of whichever row is decoded. A graph is recorded at the second step over the same storage, and again
    when the row has outgrown it."""

    def __init__(self, model: Transformer, *, has_graphs: bool = True):
        self._model = model
        self._has_graphs = has_graphs
        self._step: StaticStep | None = None

    def logits(self, cache: TensorCache, row: int, token_id: int) -> Tensor:
        """Logits (1, vocab) in float32 behind one more token of a row, whose keys and values are stored."""
        held = cache.rows[row]
        if self._step is not None and self._step.is_of(held):
            return self._step.logits(held, token_id, by_graph=self._has_graphs)
        self._step = None  # the memory of its graph is free for the next
        self._step = StaticStep(self._model, held, cache.device)
        return self._step.logits(held, token_id, by_graph=False)


def arrays_of(row: CacheRow) -> list[Tensor]:
    """The storage of keys and values: no other state is in a model whose steps are static."""
    return [state.array for state in row.states if isinstance(state, KeysValues)]


class StaticStep:
    """One step over a row's storage as it is now."""

    def __init__(self, model: Transformer, row: CacheRow, device: torch.device):
        self.arrays = arrays_of(row)
        self.places = [row.place(layer) for layer in range(len(model.model.layers))]
        self.planned_length = row.planned_length
        self.frequencies: dict[Rope, Frequencies] = {}
        self.numbers = torch.zeros(STARTS + len(self.arrays), dtype=torch.int64, device=device)
        self.slots = [torch.arange(array.shape[2], device=device) for array in self.arrays]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._model = model
        self._output = torch.empty(0)
        self._is_cuda = device.type == "cuda"

    def is_of(self, row: CacheRow) -> bool:
        """Whether the row's storage is where it was."""
        same = all(now is array for now, array in zip(arrays_of(row), self.arrays, strict=True))
        return same and row.planned_length == self.planned_length

    def logits(self, row: CacheRow, token_id: int, *, by_graph: bool) -> Tensor:
        """One small copy to the device, the step, and one copy of its logits (1, vocab) back."""
        numbers = [token_id, row.length, *(state.start for state in row.states)]
        self.numbers.copy_(torch.tensor(numbers, pin_memory=self._is_cuda), non_blocking=True)
        if not by_graph:
            return self._compute().cpu()
        if self._graph is None:
            self._graph = self._record()
        self._graph.replay()
        host = torch.empty(self._output.shape, pin_memory=True)
        host.copy_(self._output, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return host

    def _record(self) -> torch.cuda.CUDAGraph:
        """The step as a graph. It is made once before, beside the stream that others use, as recording demands; what
        it stores, it stores again."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._output = self._compute()
        return graph

    def _compute(self) -> Tensor:
        token_ids = self.numbers[None, ID : ID + 1]
        hidden = self._model.model(token_ids, StaticView(self))[0]
        return self._model.logits(hidden).float()


class StaticView(PassView):
    """A pass over one position, which only the device knows: all slots of the storage are read, and those that may not
    be looked at are masked."""

    def __init__(self, step: StaticStep):
        self.step = step
        self.positions = step.numbers[None, POSITION : POSITION + 1]
        self.tables = {}
        self.masks: dict[tuple[int, int | None], Tensor] = {}

    def rotary(self, rope: Rope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if rope not in self.tables:
            if rope not in self.step.frequencies:
                self.step.frequencies[rope] = Frequencies.of(rope, self.step.planned_length, self.positions.device)
            self.tables[rope] = self.step.frequencies[rope].cosines(self.positions, dtype)
        return self.tables[rope]

    def attend(self, inputs: AttentionInputs) -> Tensor:
        assert inputs.key_value is not None, "see is_static"
        group, place = self.step.places[inputs.layer]
        keys, values = self.step.arrays[group][2 * place : 2 * place + 2]
        start = self.step.numbers[STARTS + group]
        slot = self.positions[0] - start
        for held, new in zip((keys, values), inputs.key_value, strict=True):
            held.index_copy_(1, slot, new[0])
        window = inputs.spec.window
        if (group, window) not in self.masks:
            positions = self.step.slots[group] + start
            mask = positions <= self.positions[0]
            if window is not None:
                mask &= positions > self.positions[0] - window
            self.masks[group, window] = mask[None, None, None]
        return attend(inputs, keys[None], values[None], Sight(self.masks[group, window]))

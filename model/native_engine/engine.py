"""The engine whose forward pass is one call of compiled code, on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.native_engine.addresses import Stores, Turns, integers
from tokenglass.model.native_engine.build import load_library
from tokenglass.model.native_engine.errors import KernelsError
from tokenglass.model.native_engine.machine import Machine
from tokenglass.model.native_engine.measure import Measure
from tokenglass.model.native_engine.pages import move_to_large_pages
from tokenglass.model.native_engine.program import FLOATS, Program, named
from tokenglass.model.native_engine.structures import Pass, Sizes
from tokenglass.model.torch_engine.engine import check_ids
from tokenglass.model.torch_engine.rope import rotary_table
from tokenglass.model.torch_engine.transformer import Transformer

FIRST_TABLE = 256  # positions
MOST_TABLES = 16  # that are kept: dynamic ropes have one per planned length

Table = tuple[Tensor, Tensor]  # cosines and sines (positions, dim / 2)


class NativeEngine:
    """A transformer run by the kernels: float32, bfloat16, int8 or int4 weights, float32 or bfloat16 cache.

    Activations are float32. Every sum has one order, so the numbers are bit for bit the same for one row or many, one
    position or a chunk, and any number of threads (that of torch). The cache is the one that torch uses.
    """

    def __init__(self, model: Transformer, library: ctypes.CDLL, cache_dtype: torch.dtype):
        self.model = model
        self.dtype = cache_dtype
        self.device = torch.device("cpu")
        self.program = Program(model)
        self.tables: dict[tuple[Rope, int], Table] = {}
        self._stores: Stores | None = None  # of the cache that was used last
        self._turns: Turns | None = None  # that were used last
        self._dims = integers([rope.dim for rope in self.program.ropes])
        config = model.config
        self.sizes = Sizes(
            config.hidden_size,
            config.intermediate_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.vocab_size,
        )
        self.machine = Machine(library, self.program.operations, self.sizes)
        self.measure = Measure(library)

    @staticmethod
    def try_build(
        model: Transformer,
        cache_dtype: torch.dtype,
        load: Callable[[], ctypes.CDLL] = load_library,
        *,
        large_pages: bool = False,
    ) -> NativeEngine | str:
        """The engine, or why this machine or these weights cannot have it.

        `large_pages` moves the model's weights first: for those that were made in memory, not mapped from a file.
        """
        if cache_dtype not in FLOATS:
            return f"they do not know a cache of {named(cache_dtype)}"
        try:
            library = load()
            if large_pages:
                move_to_large_pages(model)
            return NativeEngine(model, library, cache_dtype)
        except KernelsError as reason:
            return str(reason)

    @property
    def limit(self) -> int:
        return self.model.config.max_positions

    @property
    def vocab_size(self) -> int:
        return self.model.config.vocab_size

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
        return KVCache(
            self.model.config,
            rows=rows,
            limit=self.limit,
            dtype=self.dtype,
            device=self.device,
            planned_length=planned_length,
        )

    def forward(
        self,
        token_ids: Tensor,
        cache: KVCache | None,
        *,
        last: bool = True,
        planned_length: int | None = None,
        block: int = 0,
    ) -> Tensor:
        rows, length = token_ids.shape
        logits = torch.empty(rows, 1 if last else length, self.model.config.vocab_size)
        self._pass(token_ids, cache, planned_length, last=last, block=block, logits=logits)
        return logits

    def hidden_states(
        self,
        token_ids: Tensor,
        cache: KVCache | None,
        *,
        last: bool = True,
        planned_length: int | None = None,
        block: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and the residual stream after the embedding and after every layer, in float32
        (layers + 1, rows, length, hidden)."""
        rows, length = token_ids.shape
        config = self.model.config
        logits = torch.empty(rows, 1 if last else length, config.vocab_size)
        hidden = torch.empty(config.num_layers + 1, rows, length, config.hidden_size)
        self._pass(token_ids, cache, planned_length, last=last, block=block, logits=logits, hidden=hidden)
        return logits, hidden

    def read(self, block: Tensor) -> None:
        """Only read the memory of a block, as a pass reads its weights: what the machine allows."""
        self.machine.read(block.data_ptr(), block.nbytes, torch.get_num_threads())

    def _pass(
        self,
        token_ids: Tensor,
        cache: KVCache | None,
        planned_length: int | None,
        *,
        last: bool,
        block: int,
        logits: Tensor,
        hidden: Tensor | None = None,
    ) -> None:
        check_ids(token_ids, self.vocab_size)
        rows, length = token_ids.shape
        if cache is None:
            cache = self.new_cache(rows, planned_length=length if planned_length is None else planned_length)
        cache.reserve(length)
        stores = self._stores_of(cache)
        turns = self._turns_for(cache.planned_length, cache.positions_read + length)
        token_ids = token_ids.contiguous()
        task = Pass(
            token_ids.data_ptr(),
            rows,
            length,
            last,
            block,
            integers(cache.lengths),
            integers(cache.starts),
            stores.keys,
            stores.values,
            stores.slots,
            FLOATS[cache.keys[0].dtype],
            turns.addresses,
            self._dims,
            logits.data_ptr(),
            None if hidden is None else hidden.data_ptr(),
        )
        self.machine.run(task, torch.get_num_threads())
        cache.advance(token_ids, block=block)

    # Another thread may put its own in these fields at any time: each call goes on with what it read or made itself.

    def _stores_of(self, cache: KVCache) -> Stores:
        stores = self._stores
        if stores is None or not stores.are_of(cache):
            self._stores = stores = Stores.of(cache)
        return stores

    def _turns_for(self, planned_length: int, needed: int) -> Turns:
        turns = self._turns
        if turns is None or not turns.reach(planned_length, needed):
            tables = [self._table(rope, planned_length, needed) for rope in self.program.ropes]
            self._turns = turns = Turns.of(planned_length, [part for table in tables for part in table])
        return turns

    def _table(self, rope: Rope, planned_length: int, needed: int) -> Table:
        """A rope's table of at least the positions that are needed."""
        key = rope, rope.regime(planned_length)
        table = self.tables.get(key)
        if table is not None and len(table[0]) >= needed:
            return table
        positions = torch.arange(max(FIRST_TABLE, 1 << (needed - 1).bit_length()))
        cosines, sines = rotary_table(rope, positions[None], planned_length, torch.float32)
        half = rope.dim // 2  # the other half repeats it
        if len(self.tables) >= MOST_TABLES:
            self.tables.clear()
        self.tables[key] = table = cosines[0, 0, :, :half].contiguous(), sines[0, 0, :, :half].contiguous()
        return table

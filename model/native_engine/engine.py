"""The engine whose forward pass is one call of compiled code, on the CPU. It needs no torch."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import DTYPES
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.weights import Weights, step_bytes
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Ids, Logits, check_ids
from tokenglass.model.engine.large_pages import zeros
from tokenglass.model.engine.rotary import rotary_table
from tokenglass.model.native_engine.addresses import Stores, Turns, integers
from tokenglass.model.native_engine.errors import KernelsError
from tokenglass.model.native_engine.machine import Machine
from tokenglass.model.native_engine.measure import Measure
from tokenglass.model.native_engine.program import FLOATS, Program
from tokenglass.model.native_engine.structures import Pass, Sizes

FIRST_TABLE = 256  # positions
MOST_TABLES = 16  # that are kept: dynamic ropes have one per planned length

Floats = NDArray[np.float32]
Table = tuple[Floats, Floats]  # cosines and sines (positions, dim / 2)


class NativeEngine:
    """A model run by the kernels: float32, bfloat16, int8 or int4 weights, float32 or bfloat16 cache.

    Activations are float32. Every sum has one order, so the numbers are bit for bit the same for one row or many, one
    position or a chunk, and any number of threads.
    """

    def __init__(self, blueprint: Blueprint, weights: Weights, library: ctypes.CDLL, cache_dtype: str, threads: int):
        """Raises KernelsError where these weights or this cache are unknown to the kernels."""
        if DTYPES[cache_dtype] not in FLOATS:
            raise KernelsError(f"they do not know a cache of {cache_dtype}")
        config = self.config = blueprint.config
        self.blueprint = blueprint
        self.weights = weights
        self.dtype = cache_dtype
        self.threads = threads
        self.program = Program(blueprint, weights)
        self.tables: dict[tuple[Rope, int], Table] = {}
        self._stores: Stores | None = None  # of the cache that was used last
        self._turns: Turns | None = None  # that were used last
        self._dims = integers([rope.dim for rope in self.program.ropes])
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

    @property
    def limit(self) -> int:
        return self.config.max_positions

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that one decode step reads."""
        return step_bytes(self.blueprint, self.weights)

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
        dtype = DTYPES[self.dtype]
        return KVCache(
            self.config,
            rows=rows,
            limit=self.limit,
            zeros=lambda shape: zeros(shape, dtype),
            planned_length=planned_length,
        )

    def forward(
        self,
        token_ids: Ids,
        cache: KVCache | None,
        *,
        last: bool = True,
        planned_length: int | None = None,
        block: int = 0,
    ) -> Logits:
        ids = np.ascontiguousarray(token_ids, np.int64)
        logits = np.empty((len(ids), 1 if last else ids.shape[1], self.config.vocab_size), np.float32)
        self._pass(ids, cache, planned_length, last=last, block=block, logits=logits)
        return logits

    def hidden_states(
        self,
        token_ids: Ids,
        cache: KVCache | None,
        *,
        last: bool = True,
        planned_length: int | None = None,
        block: int = 0,
    ) -> tuple[Logits, Floats]:
        """What `forward` gives, and the residual stream after the embedding and after every layer, in float32
        (layers + 1, rows, length, hidden)."""
        ids = np.ascontiguousarray(token_ids, np.int64)
        logits = np.empty((len(ids), 1 if last else ids.shape[1], self.config.vocab_size), np.float32)
        hidden = np.empty((self.config.num_layers + 1, *ids.shape, self.config.hidden_size), np.float32)
        self._pass(ids, cache, planned_length, last=last, block=block, logits=logits, hidden=hidden)
        return logits, hidden

    def read(self, block: NDArray[np.uint8]) -> None:
        """Only read the memory of a block, as a pass reads its weights: what the machine allows."""
        self.machine.read(block.ctypes.data, block.nbytes, self.threads)

    def _pass(
        self,
        ids: NDArray[np.int64],
        cache: KVCache | None,
        planned_length: int | None,
        *,
        last: bool,
        block: int,
        logits: Logits,
        hidden: Floats | None = None,
    ) -> None:
        check_ids(ids, self.vocab_size)
        rows, length = ids.shape
        if cache is None:
            cache = self.new_cache(rows, planned_length=length if planned_length is None else planned_length)
        cache.reserve(length)
        stores = self._stores_of(cache)
        turns = self._turns_for(cache.planned_length, cache.positions_read + length)
        task = Pass(
            ids.ctypes.data,
            rows,
            length,
            last,
            block,
            integers(cache.lengths),
            integers(cache.starts),
            stores.keys,
            stores.values,
            stores.slots,
            FLOATS[DTYPES[self.dtype]],
            turns.addresses,
            self._dims,
            logits.ctypes.data,
            None if hidden is None else hidden.ctypes.data,
        )
        self.machine.run(task, self.threads)
        cache.advance(ids.tolist(), block=block)

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
        if len(self.tables) >= MOST_TABLES:
            self.tables.clear()
        self.tables[key] = table = rotary_table(rope, max(FIRST_TABLE, 1 << (needed - 1).bit_length()), planned_length)
        return table

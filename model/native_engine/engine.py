"""The engine whose forward pass is one call of compiled code, on the CPU. It needs no torch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_int64, c_void_p

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import BFLOAT16
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.grids import Squares
from tokenglass.model.checkpoint.weights import Weights, step_bytes
from tokenglass.model.config.layer_states import SCALE_BYTES
from tokenglass.model.config.mixture import Mixture
from tokenglass.model.engine.cache import KVCache, State
from tokenglass.model.engine.engine import Ids, Logits, PerRow, Rows
from tokenglass.model.engine.keys_values import Cut, KeysValues, Storage
from tokenglass.model.engine.large_pages import zeros
from tokenglass.model.engine.rotary import rotary_table
from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine.draw import DrawEach
from tokenglass.model.native_engine.machine import Machine
from tokenglass.model.native_engine.measure import KernelMeasure, MeasureEach, MeasureRows
from tokenglass.model.native_engine.program import Program
from tokenglass.model.native_engine.structures import CHUNK, Kind, Pass, PassRow, Piece, Sizes
from tokenglass.model.sampling.provenance import Ints
from tokenglass.model.sampling.raw import DrawRequest, Raw, RowNumbers, TokenDraw
from tokenglass.model.sampling.routed_logits import routes_of

FIRST_TABLE = 256  # positions
MOST_TABLES = 16  # that are kept: dynamic ropes have one per planned length
CACHES = {  # what a cache can be kept in
    "float32": (np.dtype(np.float32), Kind.FLOAT32),
    "bfloat16": (BFLOAT16, Kind.BFLOAT16),
    "int8": (np.dtype(np.int8), Kind.INT8),
}

Floats = NDArray[np.float32]


class NativeEngine:
    """A model run by the kernels: float32, bfloat16, int8 or int4 weights; float32, bfloat16 or int8 cache.

    Activations are float32. Every sum has one order, so the numbers are bit for bit the same for one row or many, one
    position or a chunk, and any number of threads.
    """

    def __init__(self, blueprint: Blueprint, weights: Weights, library: ctypes.CDLL, cache_dtype: str, threads: int):
        """Raises KernelsError where these weights or this cache are unknown to the kernels."""
        if cache_dtype not in CACHES:
            raise KernelsError(f"they do not know a cache of {cache_dtype}")
        self.config = blueprint.config
        self.blueprint = blueprint
        self.weights = weights
        self.cache_dtype = cache_dtype
        self.threads = threads
        self.program = Program(blueprint, weights)
        self.tables: dict[tuple[int, ...], RotaryTables] = {}  # by what planned lengths mean for the ropes
        self._dims = (c_int64 * len(self.program.ropes))(*[rope.dim for rope in self.program.ropes])
        self.sizes = sizes_of(blueprint)
        self.watches_experts = False  # whether logits are to say which experts their positions took
        self._kernels = library
        self.machine = Machine(library, self.program.operations, self.sizes)
        self.measure = KernelMeasure(library)
        self._measure_each = MeasureEach(self.machine, self.measure)
        self._draw_each = DrawEach(self.machine)
        self._measure_rows = MeasureRows(self.machine)

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

    def measure_each(self, logits: Sequence[Logits], count: int) -> list[Raw | Logits]:
        return self._measure_each(logits, count, self.threads)

    def draw_each(self, requests: Sequence[DrawRequest]) -> list[TokenDraw | None]:
        return self._draw_each(requests, self.threads)

    def measure_rows(self, logits: Logits, token_ids: Ints) -> RowNumbers:
        return self._measure_rows(logits, token_ids, self.threads)

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
        dtype, _ = CACHES[self.cache_dtype]
        more = SCALE_BYTES if self.cache_dtype == "int8" else 0
        storage = Storage(lambda shape: zeros(shape, dtype), more, CHUNK)
        return KVCache(self.config, rows=rows, limit=self.limit, storage=storage, planned_length=planned_length)

    def forward(
        self,
        token_ids: Ids,
        cache: KVCache | None,
        *,
        last: PerRow | None = 1,
        planned_length: int | None = None,
        block: PerRow = 0,
    ) -> list[Logits]:
        rows = Rows.of(token_ids, last, block, self.vocab_size)
        return self._pass(rows, cache, planned_length)

    def hidden_states(
        self,
        token_ids: Ids,
        cache: KVCache | None,
        *,
        last: PerRow | None = 1,
        planned_length: int | None = None,
        block: PerRow = 0,
    ) -> tuple[list[Logits], Floats]:
        """What `forward` gives, and the residual stream after the embedding and after every layer, in float32
        (layers + 1, positions of all rows, hidden)."""
        rows = Rows.of(token_ids, last, block, self.vocab_size)
        hidden = np.empty((self.config.num_layers + 1, sum(rows.counts), self.config.hidden_size), np.float32)
        return self._pass(rows, cache, planned_length, hidden), hidden

    def sum_squares(self, token_ids: Ids) -> dict[str, Squares]:
        """Of what each matrix multiplies, by the matrix's name, the squares (in,) summed over the positions of rows."""
        squares = {name: np.zeros(self.blueprint.shapes[name][1]) for name in self.blueprint.in_4_bits}
        program = Program(self.blueprint, self.weights, squares)
        machine = Machine(self._kernels, program.operations, self.sizes)
        self._pass(Rows.of(token_ids, 0, 0, self.vocab_size), None, None, machine=machine)
        return squares

    def read(self, block: NDArray[np.uint8]) -> None:
        """Only read the memory of a block, as a pass reads its weights: what the machine allows."""
        self.machine.read(block.ctypes.data, block.nbytes, self.threads)

    def _pass(
        self,
        rows: Rows,
        cache: KVCache | None,
        planned_length: int | None,
        hidden: Floats | None = None,
        machine: Machine | None = None,
    ) -> list[Logits]:
        """On another machine than the engine's own, where there is one: it has the same operations."""
        if cache is None:
            cache = self.new_cache(0)
            for count in rows.counts:
                cache.add_row(count if planned_length is None else planned_length)
        cache.reserve(rows.counts)
        logits = np.empty((sum(rows.outputs), self.vocab_size), np.float32)
        tables = self._tables_of(cache, rows.counts)
        ids = rows.flat_ids()
        routes = self._new_routes(len(ids))
        task = Pass(
            ids.ctypes.data,
            len(ids),
            len(rows.counts),
            pass_rows(rows, cache, tables),
            CACHES[self.cache_dtype][1],
            self._dims,
            logits.ctypes.data,
            None if hidden is None else hidden.ctypes.data,
            *([None, None] if routes is None else [part.ctypes.data for part in routes]),
        )
        if len(ids):
            (machine or self.machine).run(task, self.threads)
        cache.advance(rows.token_ids, rows.blocks)
        if routes is None:
            return rows.split(logits)
        return rows.split(logits, routes_of(list(self.blueprint.mixtures), rows.output_columns, *routes))

    def _new_routes(self, columns: int) -> tuple[NDArray[np.int64], Floats] | None:
        """Where the pass writes the experts that each position takes, and their probabilities, both (layers with
        experts, columns, chosen); None where nobody watches."""
        if not self.watches_experts or self.config.mixture is None:
            return None
        shape = (len(self.blueprint.mixtures), columns, self.config.mixture.chosen)
        return np.zeros(shape, np.int64), np.zeros(shape, np.float32)

    def _tables_of(self, cache: KVCache, counts: Sequence[int]) -> list[RotaryTables]:
        """Those of each row; rows of one planned length share them."""
        reach: dict[int, int] = {}
        for row, count in zip(cache.rows, counts, strict=True):
            reach[row.planned_length] = max(reach.get(row.planned_length, 1), row.length + count)
        tables = {planned: self._tables_for(planned, needed) for planned, needed in reach.items()}
        return [tables[row.planned_length] for row in cache.rows]

    def _tables_for(self, planned_length: int, needed: int) -> RotaryTables:
        """The tables of at least the positions that are needed."""
        regime = tuple(rope.regime(planned_length) for rope in self.program.ropes)
        tables = self.tables.get(regime)
        if tables is not None and tables.positions >= needed:
            return tables
        if len(self.tables) >= MOST_TABLES:
            self.tables.clear()
        size = max(FIRST_TABLE, 1 << (needed - 1).bit_length())
        parts = [part for rope in self.program.ropes for part in rotary_table(rope, size, planned_length)]
        self.tables[regime] = tables = RotaryTables(size, parts)
        return tables


def sizes_of(blueprint: Blueprint) -> Sizes:
    """What all operations have in common; of layers, the widest."""
    config, rows = blueprint.config, blueprint.token_rows
    heads = [config.heads_of(kind) for kind in config.layers]
    return Sizes(
        config.hidden_size,
        max(config.intermediate_size, *(kind.intermediate_size or 0 for kind in config.layers)),
        config.num_heads,
        config.num_heads * max(each.head_dim for each in heads),
        max(each.num_kv_heads * each.head_dim for each in heads),
        config.vocab_size,
        0 if rows is None else rows.table.size,
        *mixture_sizes(config.mixture),
    )


def mixture_sizes(mixture: Mixture | None) -> tuple[int, int, int]:
    """Experts but for the shared one, how many each position takes in all, and the size of the widest."""
    if mixture is None:
        return 0, 0, 0
    shared = mixture.shared_size
    return mixture.count, mixture.chosen + (shared is not None), max(mixture.size, shared or 0)


class RotaryTables:
    """Cosines and sines of each rope, each (positions, dim / 2), and where they lie."""

    def __init__(self, positions: int, tables: Sequence[Floats]):
        self.positions = positions
        self.tables = tables  # they live as long as their addresses are used
        self.addresses = (c_void_p * len(tables))(*[table.ctypes.data for table in tables])


def described_piece(piece: Cut) -> Piece:
    """A piece of a row's cache as the kernels read it: it may be the beginning of larger storage."""
    _, head, slot, _ = piece.array.strides
    return Piece(piece.array.ctypes.data, head // max(1, slot), piece.start)


def pieces_of(state: State) -> list[Piece]:
    """What a row has of the layers that keep the same, as program.h has it."""
    if isinstance(state, KeysValues):
        return [described_piece(piece) for piece in state.pieces]
    return [Piece(None if array is None else array.ctypes.data) for array in (state.current, state.next)]


def pass_rows(rows: Rows, cache: KVCache, tables: Sequence[RotaryTables]) -> ctypes.Array[PassRow]:
    """The rows of a pass as the kernels read them."""
    described = (PassRow * len(rows.counts))()
    first = 0
    for number, (to, row, table) in enumerate(zip(described, cache.rows, tables, strict=True)):
        to.first, to.count = first, rows.counts[number]
        to.outputs, to.block = rows.outputs[number], rows.blocks[number]
        to.length, to.tables = row.length, table.addresses
        counts = (c_int64 * len(row.states))()
        pieces = (POINTER(Piece) * len(row.states))()  # filled before it is assigned, so that its arrays live as long
        for place, state in enumerate(row.states):
            described_pieces = pieces_of(state)
            # An array where its pointer is due: `cast` would make a cycle of each, which grows until it is collected.
            pieces[place] = (Piece * len(described_pieces))(*described_pieces)  # type: ignore[call-overload]
            counts[place] = len(described_pieces)
        to.pieces, to.piece_counts = pieces, counts
        first += to.count
    return described

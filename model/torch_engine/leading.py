"""The engine of the process that leads several: the others make each pass with it."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from tokenglass.model.engine.cache import CacheTail
from tokenglass.model.engine.engine import Ids, Logits, PerRow, Rows
from tokenglass.model.engine.processes import Processes
from tokenglass.model.errors import ParameterError
from tokenglass.model.progress import Progress
from tokenglass.model.records.steps import CacheUsage
from tokenglass.model.torch_engine.engine import TorchEngine
from tokenglass.model.torch_engine.group import Group, Load, Operation, Pass, is_of_group, lost
from tokenglass.model.torch_engine.split import Split
from tokenglass.model.torch_engine.storage import TensorCache


class LeadingEngine(TorchEngine):
    """A pass of it is made in all processes; what was done to caches before is sent with it."""

    def __init__(self, group: Group, key: str, part: TorchEngine, split: Split):
        super().__init__(part.model, part.device, part.dtype)
        self.processes = group.processes.size
        self.operations: list[Operation] = []
        self._group = group
        self._key = key
        self._split = split
        self._numbers = itertools.count()

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> LedCache:
        cache = LedCache(self, next(self._numbers), self._split, rows, planned_length)
        self.operations.append((cache.number, "new", rows, planned_length))
        weakref.finalize(cache, self.operations.append, (cache.number, "drop"))
        return cache

    def number_tail(self, tail: CacheTail) -> int:
        """A number for what was cut off a row, by which the others keep theirs as long as it is kept here."""
        number = next(self._numbers)
        weakref.finalize(tail, self.operations.append, (number, "drop tail"))
        return number

    def forward(
        self,
        token_ids: Ids,
        cache: Any,
        *,
        last: PerRow | None = 1,
        planned_length: int | None = None,
        block: PerRow = 0,
    ) -> list[Logits]:
        """As in one process. Raises EngineError where one of them is gone."""
        assert cache is None or isinstance(cache, LedCache), "a cache of another engine"
        rows = Rows.of(token_ids, last, block, self.vocab_size)  # what is wrong is told before anybody is asked
        said = tuple(self.operations)
        del self.operations[: len(said)]
        number = None if cache is None else cache.number
        self._group.exchange(Pass(self._key, said, number, rows.token_ids, last, planned_length, block))
        try:
            return super().forward(token_ids, cache, last=last, planned_length=planned_length, block=block)
        except RuntimeError as error:
            if is_of_group(error):
                raise lost(error) from None
            raise


class LedCache(TensorCache):
    """The leading process's part of a cache; what is done to it is done to the others' parts before the next pass."""

    def __init__(self, engine: LeadingEngine, number: int, split: Split, rows: int, planned_length: int | None):
        super().__init__(
            split.config,
            rows=rows,
            limit=engine.limit,
            dtype=engine.dtype,
            device=engine.device,
            planned_length=planned_length,
        )
        self.number = number
        self._engine = engine
        self._size = split.size
        self._tails: dict[int, int] = {}  # numbers of tails by identity

    def add_row(self, planned_length: int | None = None) -> int:
        self._tell("add_row", planned_length)
        return super().add_row(planned_length)

    def free_row(self, row: int) -> None:
        self._tell("free_row", row)
        super().free_row(row)

    def select(self, rows: Sequence[int]) -> None:
        self._tell("select", list(rows))
        super().select(rows)

    def truncate(self, row: int, length: int) -> int:
        self._tell("truncate", row, length)
        return super().truncate(row, length)

    def detach(self, row: int, start: int) -> CacheTail:
        tail = super().detach(row, start)
        number = self._engine.number_tail(tail)
        self._tails[id(tail)] = number
        weakref.finalize(tail, self._tails.pop, id(tail), None)
        self._tell("detach", row, start, number)
        return tail

    def attach(self, row: int, tail: CacheTail) -> None:
        if id(tail) not in self._tails:
            raise ParameterError("a saved cache cannot be loaded into several processes")
        self._tell("attach", row, self._tails[id(tail)])
        super().attach(row, tail)

    def usage(self, row: int = 0) -> CacheUsage:
        """In all processes together, which hold as many heads each."""
        here, size = super().usage(row), self._size
        return replace(
            here,
            nbytes_used=here.nbytes_used * size,
            nbytes_held=here.nbytes_held * size,
            bytes_per_token=here.bytes_per_token * size,
        )

    def _tell(self, name: str, *arguments: Any) -> None:
        self._engine.operations.append((self.number, name, *arguments))


def lead(
    processes: Processes, folder: Path, dtype: str, device: str, threads: int
) -> Generator[Progress, None, LeadingEngine]:
    """The engine of a model whose parts all processes hold. Raises TokenglassError."""
    group = Group(processes)
    load = Load(uuid4().hex, folder.absolute(), dtype, device, threads)
    group.exchange(load)
    split, part = yield from group.load(load)
    return LeadingEngine(group, load.key, part, split)

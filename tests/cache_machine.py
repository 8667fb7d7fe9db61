"""Every operation on a cache in any order, beside the plain lists of ids that its rows should stand for."""

from __future__ import annotations

from typing import Any, ClassVar

import tiny
import torch
from closeness import assert_close
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tokenglass.model.engine.cache import CacheTail
from tokenglass.model.torch_engine.storage import TensorCache

TOKENS = st.integers(0, tiny.VOCAB_SIZE - 1)


class CacheMachine(RuleBasedStateMachine):
    """A test makes a class of its own with the model, the limit, and how many ids come at once and in all."""

    model: ClassVar[Any]
    limit: ClassVar[int]
    most_new: ClassVar[int]
    most_ids: ClassVar[int]
    has_snapshots: ClassVar[bool] = False  # so that a row may go back further than it was asked to

    def __init__(self) -> None:
        super().__init__()
        self.tails: list[tuple[list[int], CacheTail]] = []  # with the whole row each was cut from

    @initialize(rows=st.integers(1, 3), data=st.data())
    def begin(self, rows: int, data: st.DataObject) -> None:
        config, cpu = self.model.config, torch.device("cpu")
        self.cache = TensorCache(config, rows=rows, limit=self.limit, dtype=torch.float32, device=cpu)
        self.rows: list[list[int]] = [[] for _ in range(rows)]
        self.forward(data)

    @precondition(lambda self: self.rows and max(map(len, self.rows)) <= self.most_ids)
    @rule(data=st.data())
    def forward(self, data: st.DataObject) -> None:
        new = [data.draw(st.lists(TOKENS, min_size=1, max_size=self.most_new)) for _ in self.rows]
        cached = self.model.logits(self.model.go_on(new, self.cache, [0] * len(new)))
        for row, (ids, logits) in enumerate(zip(new, torch.split(cached, [*map(len, new)]), strict=True)):
            self.rows[row] = self.rows[row] + ids
            assert_close(logits, self.model(torch.tensor([self.rows[row]]))[0, -len(ids) :])

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        row, length = self.draw_cut(data)
        before, usage = len(self.rows[row]), self.cache.usage(row)
        length_left = self.cache.truncate(row, length)
        assert length_left in (0, length) or (self.has_snapshots and length_left < length)
        if self.goes_back(before - length, usage.length - usage.evicted):
            assert length_left == length
        self.rows[row] = self.rows[row][:length_left]

    @rule(data=st.data())
    def select(self, data: st.DataObject) -> None:
        selection = data.draw(st.lists(st.integers(0, len(self.rows) - 1), min_size=1, max_size=4))
        self.cache.select(selection)
        self.rows = [list(self.rows[row]) for row in selection]

    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        row, start = self.draw_cut(data)
        tail = self.cache.detach(row, start)
        assert (tail.start, tail.length) == (start, len(self.rows[row]) - start)
        self.tails.append((self.rows[row], tail))
        self.rows[row] = self.rows[row][: self.cache.lengths[row]]

    @precondition(lambda self: self.fitting())
    @rule(data=st.data())
    def attach(self, data: st.DataObject) -> None:
        row, whole, tail = data.draw(st.sampled_from(self.fitting()))
        length = self.cache.truncate(row, tail.start)
        self.rows[row] = self.rows[row][:length]
        if length == tail.start:
            self.cache.attach(row, tail)
            self.rows[row] = list(whole)

    @invariant()
    def lengths_are_those_of_the_lists(self) -> None:
        assert self.cache.lengths == [len(ids) for ids in self.rows]

    def goes_back(self, _count: int, _held: int) -> bool:
        """Whether a row that holds so many positions has to be able to forget its last `count`."""
        return True

    def draw_cut(self, data: st.DataObject) -> tuple[int, int]:
        row = data.draw(st.integers(0, len(self.rows) - 1))
        return row, data.draw(st.integers(0, len(self.rows[row])))

    def fitting(self) -> list[tuple[int, list[int], CacheTail]]:
        """Rows that begin with the prefix a tail was cut from."""
        return [
            (row, whole, tail)
            for row, ids in enumerate(self.rows)
            for whole, tail in self.tails
            if ids[: tail.start] == whole[: tail.start]
        ]

"""Rows that come and go: each brings its own number of new ids to a pass, and gets what it gets alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from native_parts import native
from torch_parts import as_tensor, quantize_model

from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Dynamic, Rope
from tokenglass.model.engine.cache import CacheRow, KVCache
from tokenglass.model.engine.engine import Logits
from tokenglass.model.errors import PromptError
from tokenglass.model.torch_engine.engine import TorchEngine

ROPE = Rope(theta=10000.0, dim=8)
PLAIN = replace(tiny.CONFIG, max_positions=512)
SLIDING = replace(PLAIN, layers=(LayerKind(ROPE, 5), LayerKind(ROPE), LayerKind(ROPE, 5)))
DYNAMIC = replace(PLAIN, layers=(LayerKind(Rope(10000.0, 8, Dynamic(factor=2.0, trained_positions=16))),) * 2)
KINDS = [
    *(("native", weights, "float32") for weights in ("float32", "bfloat16", "int8", "int4")),
    ("native", "float32", "bfloat16"),
    ("native", "bfloat16", "int8"),
    ("torch", "float32", "float32"),
]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def engine_of(config: Any, kind: tuple[str, str, str] = KINDS[0]) -> Any:
    backend, weights, cache_dtype = kind
    model = tiny.random_transformer(config)
    if backend == "torch":
        return TorchEngine(model, torch.device("cpu"), torch.float32)
    if weights == "bfloat16":
        model.to(torch.bfloat16)
    elif weights != "float32":
        quantize_model(model, "int8" if weights == "int8" else "int4")
    return native(model, cache_dtype)


def ids_of(count: int, number: int = 0) -> list[int]:
    return [(17 * number + 29 * place + place * place // 7) % tiny.VOCAB_SIZE for place in range(count)]


def same(actual: Logits, expected: Logits, engine: Any) -> None:
    """The same bits from the native engine, whose sums have one order; from torch the same numbers."""
    assert actual.shape == expected.shape
    if isinstance(engine, TorchEngine) and len(actual):
        assert_close(as_tensor(actual), as_tensor(expected))
    else:
        assert np.array_equal(actual, expected)


def addresses(row: CacheRow) -> list[int]:
    return [as_tensor(state.array).data_ptr() for state in row.states]


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("config", [PLAIN, SLIDING], ids=["plain", "sliding"])
def test_prefill_of_some_rows_beside_decode_of_others_is_what_each_gets_alone(config: Any, kind: Any) -> None:
    """Rows of one position and of many, within a chunk of attention (128 positions) and over several."""
    engine = engine_of(config, kind)
    texts = [ids_of(count, number) for number, count in enumerate((300, 170, 30, 9, 140))]
    passes = [(200, 1, 9, 0, 100), (1, 127, 1, 8, 1), (98, 1, 1, 1, 30), (1, 41, 19, 0, 9)]
    cache = engine.new_cache(len(texts))
    for counts in passes:
        starts = cache.lengths
        new = [ids[start : start + count] for ids, start, count in zip(texts, starts, counts, strict=True)]
        actual = engine.forward(new, cache, last=None)
        for ids, start, count, logits in zip(texts, starts, counts, actual, strict=True):
            assert logits.shape == (count, tiny.VOCAB_SIZE)
            if count:
                alone = engine.forward([ids[: start + count]], None, last=count, planned_length=512)
                same(logits, alone[0], engine)
    assert cache.lengths == [sum(counts) for counts in zip(*passes, strict=True)]


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], ids="-".join)
def test_each_row_says_how_many_of_its_last_logits_it_wants(kind: Any) -> None:
    engine = engine_of(PLAIN, kind)
    rows = [ids_of(count, number) for number, count in enumerate((12, 1, 5, 0))]
    whole = engine.forward(rows, engine.new_cache(4), last=None)
    for last, counts in ((1, [1, 1, 1, 0]), ([3, 1, 0, 1], [3, 1, 0, 0]), (0, [0, 0, 0, 0]), (9, [9, 1, 5, 0])):
        actual = engine.forward(rows, engine.new_cache(4), last=last)
        assert [len(logits) for logits in actual] == counts
        for logits, all_logits, count in zip(actual, whole, counts, strict=True):
            same(logits, all_logits[len(all_logits) - count :], engine)


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], ids="-".join)
def test_no_logit_depends_on_a_later_id_or_on_another_row(kind: Any) -> None:
    engine = engine_of(SLIDING, kind)
    rows = [ids_of(40, 1), ids_of(7, 2), ids_of(150, 3)]
    before = engine.forward(rows, engine.new_cache(3), last=None)
    for row, place in ((0, 20), (1, 6), (2, 130)):
        changed = [list(ids) for ids in rows]
        changed[row][place] += 1
        after = engine.forward(changed, engine.new_cache(3), last=None)
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            end = place if number == row else len(old)
            same(old[:end], new[:end], engine)
        assert not np.array_equal(before[row][place:], after[row][place:])


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], ids="-".join)
def test_a_block_in_one_row_is_no_block_in_another(kind: Any) -> None:
    engine = engine_of(PLAIN, kind)
    rows, blocks = [ids_of(20, 1), ids_of(20, 2), ids_of(3, 3)], [8, 0, 3]
    cache = engine.new_cache(3)
    actual = engine.forward(rows, cache, last=None, block=blocks)
    for ids, block, logits in zip(rows, blocks, actual, strict=True):
        same(logits, engine.forward([ids], None, last=None, block=block, planned_length=512)[0], engine)
    assert [cache.keep_prefix(row, ids) for row, ids in enumerate(rows)] == [12, 20, 0]


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], ids="-".join)
def test_rows_that_plan_for_different_lengths_turn_by_different_angles(kind: Any) -> None:
    engine = engine_of(DYNAMIC, kind)
    planned = [20, 300, 64]
    cache = engine.new_cache(0)
    assert [cache.add_row(length) for length in planned] == [0, 1, 2]
    ids = ids_of(18)
    engine.forward([ids[:5], ids[:9], ids[:1]], cache)
    actual = engine.forward([ids[5:], ids[9:], ids[1:]], cache, last=None)
    for logits, length in zip(actual, planned, strict=True):
        same(logits, engine.forward([ids], None, last=len(logits), planned_length=length)[0], engine)
    assert not np.allclose(actual[0][-1], actual[1][-1])


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], ids="-".join)
def test_rows_come_and_go_without_the_others_being_moved(kind: Any) -> None:
    engine = engine_of(SLIDING, kind)
    cache = engine.new_cache(3)
    engine.forward([ids_of(30, number) for number in range(3)], cache)
    first, _, third = cache.rows
    there = [addresses(row) for row in cache.rows]
    bytes_of = [cache.usage(row) for row in range(3)]

    cache.free_row(1)
    assert cache.rows == [first, third]
    assert cache.add_row() == 2
    cache.select([1, 0, 2])
    engine.forward([[], [], ids_of(40, 4)], cache)

    assert cache.rows[:2] == [third, first]
    assert [addresses(row) for row in (first, third)] == [there[0], there[2]]
    assert [cache.usage(row) for row in (0, 1)] == [bytes_of[2], bytes_of[0]]

    cache.select([0, 0])
    assert addresses(cache.rows[0]) == there[2]
    assert not set(addresses(cache.rows[1])) & set(there[2])
    assert [usage.nbytes_used for usage in map(cache.usage, (0, 1))] == [bytes_of[2].nbytes_used] * 2


@pytest.mark.parametrize("kind", KINDS[1:-1], ids="-".join)
def test_rows_that_begin_alike_read_whole_chunks_from_one_place(kind: Any) -> None:
    """And none of them can change what the others read."""
    engine = engine_of(PLAIN, kind)
    cache = engine.new_cache(1)
    texts = [ids_of(300)] * 3
    engine.forward(texts[:1], cache)
    cache.select([0, 0, 0])
    (there,) = addresses(cache.rows[0])
    for row in cache.rows[1:]:
        (state,) = row.states
        assert [(piece.start, piece.end) for piece in state.pieces] == [(0, 256), (256, 256 + 64)]
        assert state.pieces[0].array.ctypes.data == there
    for lengths in ((300, 270, 256), (200, 300, 100), (128, 2, 128)):
        for row, length in enumerate(lengths):
            cache.truncate(row, length)
        texts = [ids[:length] + ids_of(160, row) for row, (ids, length) in enumerate(zip(texts, lengths, strict=True))]
        new = [ids[length:] for ids, length in zip(texts, lengths, strict=True)]
        for ids, logits in zip(texts, engine.forward(new, cache, last=None), strict=True):
            assert_alone(engine, ids, logits)


def test_where_one_row_does_not_fit_no_row_is_touched() -> None:
    engine = engine_of(PLAIN)
    cache = engine.new_cache(2)
    engine.forward([ids_of(500), ids_of(3)], cache)
    before = [addresses(row) for row in cache.rows]
    with pytest.raises(PromptError, match="513 positions do not fit in a context of 512"):
        engine.forward([ids_of(13), ids_of(200)], cache)
    assert cache.lengths == [500, 3]
    assert [addresses(row) for row in cache.rows] == before
    with pytest.raises(PromptError, match="the tokenizer has and the model has not"):
        engine.forward([[1], [tiny.VOCAB_SIZE]], cache)
    assert cache.lengths == [500, 3]


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], ids="-".join)
def test_a_pass_without_ids_computes_nothing(kind: Any) -> None:
    engine = engine_of(PLAIN, kind)
    cache = engine.new_cache(2)
    engine.forward([[1, 2], [3]], cache)
    assert [logits.shape for logits in engine.forward([[], []], cache)] == [(0, tiny.VOCAB_SIZE)] * 2
    assert engine.forward([], engine.new_cache(0)) == []
    assert cache.lengths == [2, 1]


@settings(max_examples=20, deadline=None)
@given(data=st.data(), threads=st.integers(1, 3))
def test_any_ragged_passes_give_what_the_rows_give_alone(data: st.DataObject, threads: int) -> None:
    torch.set_num_threads(threads)
    engine = ENGINES[data.draw(st.sampled_from(["plain", "sliding", "int8"]))]
    rows = data.draw(st.integers(1, 5))
    cache, texts = engine.new_cache(rows), [list[int]() for _ in range(rows)]
    for _ in range(data.draw(st.integers(1, 5))):
        counts = data.draw(st.lists(st.sampled_from([0, 1, 1, 2, 8, 9, 40, 64]), min_size=rows, max_size=rows))
        new = [ids_of(count, data.draw(st.integers(0, 99))) for count in counts]
        actual = engine.forward(new, cache, last=None)
        texts = [ids + more for ids, more in zip(texts, new, strict=True)]
        for ids, logits in zip(texts, actual, strict=True):
            assert_alone(engine, ids, logits)


def assert_alone(engine: Any, ids: Sequence[int], logits: Logits) -> None:
    if len(logits):
        same(logits, engine.forward([ids], None, last=len(logits), planned_length=512)[0], engine)


ENGINES: dict[str, Any] = {}


@pytest.fixture(autouse=True, scope="module")
def engines() -> Iterator[None]:
    ENGINES.update(plain=engine_of(PLAIN), sliding=engine_of(SLIDING), int8=engine_of(SLIDING, KINDS[-2]))
    yield
    ENGINES.clear()


class Slots(RuleBasedStateMachine):
    """Prompts through slots, as continuous batching does it, beside the ids that each row should stand for."""

    @initialize(name=st.sampled_from(["plain", "sliding", "int8"]))
    def begin(self, name: str) -> None:
        self.engine = ENGINES[name]
        self.cache: KVCache = self.engine.new_cache(0)
        self.texts: list[list[int]] = []

    @precondition(lambda self: len(self.texts) < 5)
    @rule()
    def arrive(self) -> None:
        assert self.cache.add_row() == len(self.texts)
        self.texts.append([])

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        row = data.draw(st.integers(0, len(self.texts) - 1))
        there = [addresses(other) for other in self.cache.rows]
        self.cache.free_row(row)
        del self.texts[row], there[row]
        assert [addresses(other) for other in self.cache.rows] == there

    @precondition(lambda self: self.texts and max(map(len, self.texts)) < 400)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        counts = [data.draw(st.sampled_from([0, 1, 1, 3, 20, 110])) for _ in self.texts]
        new = [ids_of(count, data.draw(st.integers(0, 99))) for count in counts]
        self.texts = [ids + more for ids, more in zip(self.texts, new, strict=True)]
        for ids, logits in zip(self.texts, self.engine.forward(new, self.cache, last=2), strict=True):
            assert_alone(self.engine, ids, logits)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def branch(self, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.integers(0, len(self.texts) - 1), min_size=1, max_size=5))
        self.cache.select(rows)
        self.texts = [list(self.texts[row]) for row in rows]

    @precondition(lambda self: len(self.texts) > 1)
    @rule(data=st.data())
    def begin_alike(self, data: st.DataObject) -> None:
        row, to = data.draw(st.permutations(range(len(self.texts))))[:2]
        self.cache.copy_prefix(row, to, data.draw(st.integers(0, len(self.texts[row]))))
        self.texts[to] = self.texts[row][: self.cache.lengths[to]]

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        row = data.draw(st.integers(0, len(self.texts) - 1))
        length = self.cache.truncate(row, data.draw(st.integers(0, len(self.texts[row]))))
        del self.texts[row][length:]

    @invariant()
    def rows_are_their_texts_and_write_to_memory_of_their_own(self) -> None:
        assert [row.token_ids for row in self.cache.rows] == self.texts
        held = [address for row in self.cache.rows if row.usage().nbytes_held for address in addresses(row)]
        assert len(held) == len(set(held))
        for number, row in enumerate(self.cache.rows):
            pieces = [piece.array.nbytes for state in row.states for piece in state.pieces]
            assert self.cache.usage(number).nbytes_held == sum(pieces)


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)

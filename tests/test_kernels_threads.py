"""Several callers of one engine, and several threads of one call, however the system runs them."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import tiny
import torch
from native_parts import native
from test_families import random_ids

from model.config import ModelConfig
from model.kernels import addresses
from model.kernels.native import NativeEngine
from model.layer_kinds import LayerKind
from model.rope_config import Dynamic, Rope

CALLERS, ENGINES = 4, 8
PLAIN = replace(tiny.CONFIG, max_positions=1024)
# The table of each length is another one.
DYNAMIC = replace(PLAIN, layers=(LayerKind(Rope(10000.0, 8, Dynamic(factor=2.0, trained_positions=16))),) * 2)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other callers run while one prepares its pass."""

    def integers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
        time.sleep(0.001)
        return addresses.integers(values)

    monkeypatch.setattr("model.kernels.native.integers", integers)


def logits_by_steps(engine: NativeEngine, ids: torch.Tensor) -> torch.Tensor:
    length = ids.shape[1]
    cache = engine.new_cache(planned_length=length)
    parts = ids.split([20, *[1] * 5, length - 25], dim=1)
    return torch.cat([engine.forward(part, cache, last=False) for part in parts], dim=1)


@pytest.mark.parametrize("config", [PLAIN, DYNAMIC], ids=["one table", "a table per length"])
@pytest.mark.usefixtures("interrupted")
def test_callers_with_different_lengths_get_what_each_gets_alone(config: ModelConfig) -> None:
    model = tiny.random_transformer(config)
    texts = [random_ids(length, rows=1) for length in (30, 300, 60, 600)]
    expected = [native(model).forward(ids, None, last=False) for ids in texts]
    wrong: list[int] = []
    for _ in range(ENGINES):
        engine = native(model)  # a new one, whose tables have to grow
        start = threading.Barrier(CALLERS)

        def ask(number: int, engine: NativeEngine = engine, start: threading.Barrier = start) -> None:
            start.wait()
            whole, parts = engine.forward(texts[number], None, last=False), logits_by_steps(engine, texts[number])
            wrong.extend(number for logits in (whole, parts) if not torch.equal(logits, expected[number]))

        callers = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not wrong

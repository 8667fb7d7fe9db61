"""Sliding-window layers hold their window and slack, and no operation on the cache ever changes a logit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from cache_machine import CacheMachine
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant
from torch import Tensor

from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.errors import ConfigError
from tokenglass.model.torch_engine.storage import TensorCache

WINDOW, SLACK = 5, 3
ROPE = Rope(theta=10000.0, dim=8)
SLIDING, FULL = LayerKind(ROPE, WINDOW), LayerKind(ROPE)
MIXED = tiny.random_transformer(replace(tiny.CONFIG, layers=(SLIDING, FULL, SLIDING)))
ALL = tiny.random_transformer(replace(tiny.CONFIG, layers=(SLIDING, SLIDING)))


pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")


@pytest.fixture(autouse=True)
def little_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenglass.model.engine.keys_values.SLACK", SLACK)


def new_cache(model: torch.nn.Module = MIXED, rows: int = 1, limit: int = 200) -> TensorCache:
    return TensorCache(model.config, rows=rows, limit=limit, dtype=torch.float32, device=torch.device("cpu"))


def close(cached: Tensor, ids: list[int], model: torch.nn.Module = MIXED) -> None:
    """The cached logits (count, vocab) are those after the last of these ids, computed without a cache."""
    assert_close(cached, model(torch.tensor([ids]))[0, -len(cached) :])


@settings(max_examples=40)
@given(chunks=st.lists(st.integers(1, 20), min_size=1, max_size=12), model=st.sampled_from([MIXED, ALL]))
def test_any_chunks_give_the_logits_of_the_whole(chunks: list[int], model: torch.nn.Module) -> None:
    ids = torch.randint(tiny.VOCAB_SIZE, (2, sum(chunks)), generator=torch.Generator().manual_seed(1))
    cache = new_cache(model, rows=2, limit=300)
    cached = torch.cat([model(part, cache) for part in ids.split(chunks, dim=1)], dim=1)
    assert_close(cached, model(ids))


class Rows(CacheMachine):
    model, limit, most_new, most_ids = MIXED, 200, 20, 120

    def goes_back(self, count: int, held: int) -> bool:
        return count <= held - WINDOW + 1  # within the slack

    @invariant()
    def usage_is_true(self) -> None:
        for row, ids in enumerate(self.rows):
            usage = self.cache.usage(row)
            per_layer = usage.bytes_per_token // 3
            assert usage.nbytes_used == per_layer * (len(ids) + 2 * (len(ids) - usage.evicted))
            assert usage.evicted <= max(0, len(ids) - WINDOW + 1)


TestRows = Rows.TestCase
TestRows.settings = settings(max_examples=50, stateful_step_count=20)


def test_a_window_keeps_its_size_and_says_what_it_let_go() -> None:
    cache = new_cache()
    for token in range(60):
        MIXED(torch.tensor([[token]]), cache)
        usage = cache.usage()
        assert cache.rows[0].layer(0)[0].shape[1] <= WINDOW + 2 * SLACK
        assert usage.length - usage.evicted >= min(token + 1, WINDOW - 1 + SLACK)
    assert (usage.length, usage.bytes_per_token) == (60, MIXED.config.cache_bytes_per_token("float32"))
    assert usage.evicted > 60 - WINDOW - 2 * SLACK
    assert usage.nbytes_held == sum(state.array.nbytes for state in cache.rows[0].states)


def test_a_long_chunk_is_held_only_until_the_next_pass() -> None:
    cache = new_cache(ALL)
    ALL(torch.arange(100)[None], cache)
    close(ALL(torch.tensor([[7]]), cache)[0], [*range(100), 7], ALL)
    assert cache.usage().allocated == WINDOW + 2 * SLACK


def test_short_rewinds_are_free_and_a_deep_one_says_that_the_prefix_is_gone() -> None:
    ids = list(range(50))
    for depth in range(1, SLACK + 1):
        cache = new_cache()
        for token in ids:
            MIXED(torch.tensor([[token]]), cache)
        assert cache.truncate(0, 50 - depth) == 50 - depth
        close(MIXED(torch.tensor([[99]]), cache)[0], [*ids[:-depth], 99])
    assert cache.truncate(0, 10) == 0
    assert (cache.lengths, cache.usage().evicted) == ([0], 0)
    close(MIXED(torch.tensor([ids[:11]]), cache)[0], ids[:11])


def test_a_window_hides_what_is_before_it() -> None:
    ids = torch.arange(30)[None]
    other = ids.clone()
    other[0, 30 - 2 * (WINDOW - 1) - 2] = 99  # two layers see two windows back
    assert torch.equal(ALL(ids, last=True), ALL(other, last=True))
    assert not torch.equal(MIXED(ids, last=True), MIXED(other, last=True))


def test_the_config_knows_what_a_full_cache_takes() -> None:
    config = replace(tiny.CONFIG, layers=(LayerKind(ROPE, 10), FULL))
    per_layer = config.cache_bytes_per_token("float32") // 2
    assert config.cache_bytes(50, "float32") == per_layer * 100
    assert config.cache_bytes(250, "float32") == per_layer * (250 + 10 + 2 * 64)


def test_windows_of_two_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="sliding windows of different sizes"):
        replace(tiny.CONFIG, layers=(SLIDING, LayerKind(ROPE, WINDOW + 1)))

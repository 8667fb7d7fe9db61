"""Decoding with a cache gives the logits of computing everything again, whatever is done to its rows."""

from __future__ import annotations

import pytest
import tiny
import torch
from cache_machine import TOKENS, CacheMachine
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenglass.model.errors import PromptError
from tokenglass.model.torch_engine.storage import TensorCache, write

MODEL = tiny.random_transformer()
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")


def new_cache(rows: int = 1, limit: int = 64, dtype: torch.dtype = torch.float32) -> TensorCache:
    return TensorCache(tiny.CONFIG, rows=rows, limit=limit, dtype=dtype, device=CPU)


def recompute(ids: list[int], count: int = 1) -> Tensor:
    """Logits (count, vocab) after the last `count` of these ids, without a cache."""
    return MODEL(torch.tensor([ids]))[0, -count:]


def close(cached: Tensor, expected: Tensor) -> None:
    assert_close(cached, expected)


@settings(max_examples=30)
@given(chunks=st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=7))
def test_any_chunks_give_the_logits_of_the_whole(chunks: list[list[int]]) -> None:
    cache = new_cache()
    cached = torch.cat([MODEL(torch.tensor([chunk]), cache)[0] for chunk in chunks])
    whole = [token_id for chunk in chunks for token_id in chunk]
    close(cached, recompute(whole, len(whole)))
    assert cache.lengths == [len(whole)]


@settings(max_examples=30)
@given(
    prompts=st.lists(st.lists(TOKENS, min_size=1, max_size=12), min_size=2, max_size=4),
    count=st.integers(1, 5),
    data=st.data(),
)
def test_rows_of_different_lengths_give_what_each_gives_alone(
    prompts: list[list[int]], count: int, data: st.DataObject
) -> None:
    batch = new_cache(rows=len(prompts))
    for row, prompt in enumerate(prompts):
        alone = new_cache()
        MODEL(torch.tensor([prompt]), alone)
        batch.attach(row, alone.detach(0, 0))
    more = [data.draw(st.lists(TOKENS, min_size=count, max_size=count)) for _ in prompts]
    cached = MODEL(torch.tensor(more), batch)
    for row, (prompt, new) in enumerate(zip(prompts, more, strict=True)):
        close(cached[row], recompute(prompt + new, count))


class Rows(CacheMachine):
    model, limit, most_new, most_ids = MODEL, 64, 4, 40


TestRows = Rows.TestCase
TestRows.settings = settings(max_examples=60, stateful_step_count=20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_usage_tells_the_bytes_of_the_real_tensors(dtype: torch.dtype) -> None:
    model = tiny.random_transformer().to(dtype)
    cache = new_cache(rows=2, dtype=dtype)
    model(torch.tensor([[1, 2, 3, 4, 5]] * 2), cache)
    cache.truncate(1, 2)
    held = sum(state.array.untyped_storage().nbytes() for row in cache.rows for state in row.states)
    usages = [cache.usage(row) for row in (0, 1)]
    assert sum(usage.nbytes_held for usage in usages) == held
    assert [usage.length for usage in usages] == [5, 2]
    for row, usage in enumerate(usages):
        written = [state.array[:, :, : usage.length] for state in cache.rows[row].states]
        assert usage.nbytes_used == sum(part.numel() * part.element_size() for part in written)
        assert usage.nbytes_used == usage.length * usage.bytes_per_token
        assert usage.nbytes_held == usage.allocated * usage.bytes_per_token
        assert (usage.limit, usage.evicted) == (64, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_cache_holds_what_a_small_one_held(dtype: torch.dtype) -> None:
    """Beyond 2 MiB its memory is of large pages, where the system has them."""
    cache = new_cache(limit=1 << 16, dtype=dtype)
    row, layers = cache.rows[0], range(tiny.CONFIG.num_layers)
    vectors = [torch.randn(1, tiny.CONFIG.num_kv_heads, 5, tiny.CONFIG.head_dim).to(dtype) for _ in layers]
    for count in (5, 1 << 16):
        new = count - row.length
        cache.reserve([new])
        for layer, part in enumerate(vectors):
            if count == 5:
                write(row, layer, part, -part)
        cache.advance([[0] * new], [0])
    for layer, part in enumerate(vectors):
        keys, values, _ = row.layer(layer)
        assert torch.equal(keys[None, :, :5], part)
        assert torch.equal(values[None, :, :5], -part)
        assert not keys[:, 5:].any()
    assert row.usage().nbytes_held > 2**21


def test_bytes_per_token_is_what_the_config_promises() -> None:
    assert new_cache().usage().bytes_per_token == tiny.CONFIG.cache_bytes_per_token("float32")


def test_storage_grows_in_steps_and_never_beyond_the_limit() -> None:
    cache = new_cache(limit=10)
    allocated = []
    for token_id in range(10):
        MODEL(torch.tensor([[token_id]]), cache)
        allocated.append(cache.usage().allocated)
    assert allocated == [4, 4, 4, 4, 8, 8, 8, 8, 10, 10]


def test_more_positions_than_the_limit_are_refused_and_the_cache_stays_usable() -> None:
    cache = new_cache(limit=6)
    MODEL(torch.tensor([[1, 2, 3, 4]]), cache)
    with pytest.raises(PromptError, match="7 positions do not fit in a context of 6"):
        MODEL(torch.tensor([[5, 6, 7]]), cache)
    close(MODEL(torch.tensor([[5, 6]]), cache)[0], recompute([1, 2, 3, 4, 5, 6], 2))


def test_a_tail_beyond_the_limit_is_refused() -> None:
    long = new_cache(limit=16)
    MODEL(torch.arange(12)[None], long)
    with pytest.raises(ValueError, match="does not fit"):
        new_cache(limit=8).attach(0, long.detach(0, 0))


def test_a_forward_pass_that_fails_leaves_the_cache_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = new_cache()
    MODEL(torch.tensor([[1, 2, 3]]), cache)

    def fail(*inputs: Tensor) -> Tensor:
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(MODEL.model.layers[1].mlp, "forward", fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            MODEL(torch.tensor([[9, 9]]), cache)
    close(MODEL(torch.tensor([[4]]), cache)[0], recompute([1, 2, 3, 4]))


def test_truncating_to_more_than_there_is_is_refused() -> None:
    cache = new_cache()
    MODEL(torch.tensor([[1, 2, 3]]), cache)
    for length in (-1, 4):
        with pytest.raises(ValueError, match="cannot truncate a row of 3 positions"):
            cache.truncate(0, length)


def test_a_tail_fits_only_behind_the_prefix_it_was_cut_from() -> None:
    cache = new_cache()
    MODEL(torch.tensor([[1, 2, 3]]), cache)
    tail = cache.detach(0, 2)
    cache.truncate(0, 1)
    with pytest.raises(ValueError, match="a tail from position 2 does not fit a row of 1"):
        cache.attach(0, tail)

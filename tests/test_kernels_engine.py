"""The native engine gives what torch gives, for every family, and the same bits in whatever pieces it is asked."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import native_parts
import numpy as np
import pytest
import tiny
import torch
from closeness import assert_close
from families import BORDER, CASES, LIMIT, WINDOW, random_ids, save
from hypothesis import given, settings
from hypothesis import strategies as st
from native_parts import float_weight, native
from torch import Tensor, nn
from torch_parts import as_tensor, load_engine, quantize_model

from tokenglass.model.checkpoint.arrays import BFLOAT16
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.large_pages import Arena, zeros
from tokenglass.model.errors import ConfigError, PromptError
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine
from tokenglass.model.torch_engine.transformer import Transformer

ROPE = Rope(theta=10000.0, dim=8)
SLIDING = replace(tiny.CONFIG, layers=(LayerKind(ROPE, 5), LayerKind(ROPE), LayerKind(ROPE, 5)))
LONG = replace(tiny.CONFIG, max_positions=1024)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("family")
    save(root, *CASES[request.param])
    return root


def load(folder: Path, dtype: str = "float32") -> TorchEngine:
    return load_engine(Checkpoint.open(folder), dtype=dtype, device="cpu")


def in_float32(model: Transformer) -> TorchEngine:
    """The reference: torch in float32 with just these weights, dequantised where they are quantised."""
    config = model.config
    if config.embedding_scale is not None and isinstance(model.model.embed_tokens.weight, Tensor):
        scale = torch.tensor(config.embedding_scale, dtype=model.model.embed_tokens.weight.dtype).item()
        config = replace(config, embedding_scale=scale)
    reference = Transformer(config).eval().requires_grad_(False)
    theirs = dict(model.named_modules())
    for name, module in reference.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight = nn.Parameter(float_weight(theirs[name]).clone(), requires_grad=False)
            if getattr(module, "bias", None) is not None:
                module.bias.copy_(theirs[name].bias)
        else:  # norms, sinks and the like
            for own, parameter in module.named_parameters(recurse=False):
                parameter.copy_(getattr(theirs[name], own))
    return TorchEngine(reference, torch.device("cpu"), torch.float32)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-4) -> None:
    assert expected.std() > 0.5  # a flat model would agree with anything
    assert_close(actual, expected, atol)


def test_passes_leave_no_cycles_that_grow_until_they_are_collected() -> None:
    engine = native(tiny.random_transformer(tiny.CONFIG))
    cache = engine.new_cache(2)
    engine.forward(random_ids(5), cache)
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            engine.forward(random_ids(1), cache)
        assert gc.collect() < 100  # a few types of ctypes' arrays, however many passes there are
    finally:
        gc.enable()


@pytest.mark.parametrize("length", [50, 110])
def test_every_family_has_the_logits_of_torch(folder: Path, length: int) -> None:
    reference = load(folder)
    engine = native(load(folder).model)
    ids = random_ids(length)
    close(as_tensor(engine.forward(ids, None, last=None)), as_tensor(reference.forward(ids, None, last=None)))


@pytest.mark.parametrize(("kind", "atol"), [("bfloat16", 1e-4), ("int8", 2e-2), ("int4", 2e-2)])
def test_every_family_runs_with_smaller_weights(folder: Path, kind: str, atol: float) -> None:
    """Columns of 16 bits are further from those of float32."""
    model = load(folder, "bfloat16" if kind == "bfloat16" else "float32").model
    if kind != "bfloat16":
        quantize_model(model, kind)
    expected = as_tensor(in_float32(model).forward(random_ids(60), None, last=None))
    close(as_tensor(native(model).forward(random_ids(60), None, last=None)), expected, atol)


@pytest.mark.parametrize("cache_dtype", ["float32", "bfloat16", "int8"])
def test_every_family_has_the_same_bits_by_chunks_steps_rows_and_threads(folder: Path, cache_dtype: str) -> None:
    engine = native(load(folder).model, cache_dtype)
    ids = random_ids(BORDER + 9)
    whole = as_tensor(engine.forward(ids, None, last=None))
    assert whole.std() > 0.5
    for count, sizes in ((1, [BORDER, *[1] * 9]), (4, [7] * 15), (3, [40, 40, 25])):
        torch.set_num_threads(count)
        cache = engine.new_cache(2, planned_length=BORDER + 9)
        parts = [as_tensor(engine.forward(part, cache, last=None)) for part in ids.split(sizes, dim=1)]
        assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(as_tensor(engine.forward(ids[1:], None, last=None)), whole[1:])
    assert torch.equal(as_tensor(engine.forward(ids, None)), whole[:, -1:])


@pytest.mark.parametrize("cache_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("head_dim", [4, 12, 36, 264])  # parts of vectors, and longer than keys that are widened
def test_heads_of_every_size_have_the_same_bits_by_chunks_and_steps(head_dim: int, cache_dtype: str) -> None:
    layers = (LayerKind(Rope(theta=10000.0, dim=head_dim)),) * 2
    engine = native(tiny.random_transformer(replace(tiny.CONFIG, head_dim=head_dim, layers=layers)), cache_dtype)
    ids, cache = random_ids(60), engine.new_cache(2, planned_length=60)
    parts = [as_tensor(engine.forward(part, cache, last=None)) for part in ids.split([1] * 30 + [2] * 15, dim=1)]
    assert torch.equal(torch.cat(parts, dim=1), as_tensor(engine.forward(ids, None, last=None)))


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("pre", [False, True])
def test_wirings_that_no_family_has_are_those_of_torch_or_refused(pre: bool, post: bool, parallel: bool) -> None:
    wiring = {"pre_norm": pre, "post_norm": post, "parallel_residual": parallel}
    if post and parallel:
        with pytest.raises(ConfigError, match="MLP beside attention is not supported with norms"):
            replace(tiny.CONFIG, **wiring)
        return
    model = tiny.random_transformer(replace(tiny.CONFIG, **wiring))
    expected = as_tensor(
        TorchEngine(model, torch.device("cpu"), torch.float32).forward(random_ids(50), None, last=None)
    )
    close(as_tensor(native(model).forward(random_ids(50), None, last=None)), expected)


def test_every_family_leaves_the_hidden_states_of_torch(folder: Path) -> None:
    reference = load(folder)
    outputs: list[Tensor] = []
    layers = reference.model.model.layers
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, given: outputs.append(given[0]))
    layers[-1].register_forward_hook(lambda _, given, out: outputs.append(out))
    ids = random_ids(30)
    expected = reference.model(ids, last=True)
    logits, hidden = (as_tensor(part) for part in native(load(folder).model).hidden_states(ids, None))
    expected_states = torch.stack(outputs).flatten(1, 2)
    torch.testing.assert_close(hidden, expected_states, rtol=1e-5, atol=1e-4)
    close(logits, expected)


def test_every_family_keeps_the_keys_and_values_of_torch(folder: Path) -> None:
    reference = load(folder)
    ids = random_ids(60)
    caches = []
    for engine in (reference, native(reference.model)):
        cache = engine.new_cache(2, planned_length=60)
        as_tensor(engine.forward(ids[:, :37], cache))
        as_tensor(engine.forward(ids[:, 37:], cache))
        caches.append(cache)
    theirs, ours = caches
    for row, other in zip(ours.rows, theirs.rows, strict=True):
        assert (row.token_ids, row.start) == (other.token_ids, other.start)
        for state, expected in zip(row.states, other.states, strict=True):
            here, there = (each.cut(each.start, 60).array for each in (state, expected))
            torch.testing.assert_close(as_tensor(here), there, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("past", "causal", "block"), [(0, 0, 9), (13, 0, 9), (13, 4, 20), (0, 150, 32), (140, 0, 8)])
@pytest.mark.parametrize("config", [LONG, replace(SLIDING, max_positions=1024)], ids=["full", "sliding"])
def test_a_block_sees_itself_as_in_torch(config: Any, past: int, causal: int, block: int) -> None:
    reference = TorchEngine(tiny.random_transformer(config), torch.device("cpu"), torch.float32)
    engine = native(reference.model)
    ids = random_ids(past + causal + block)
    got = []
    for one in (reference, engine):
        cache = one.new_cache(2)
        if past:
            as_tensor(one.forward(ids[:, :past], cache))
        got.append(as_tensor(one.forward(ids[:, past:], cache, last=None, block=block)))
    assert_close(got[1], got[0])
    plain = as_tensor(engine.forward(ids, None, last=None))[:, past:]
    assert torch.equal(got[1][:, :causal], plain[:, :causal])
    assert not torch.equal(got[1][:, causal], plain[:, causal])


@settings(max_examples=30)
@given(data=st.data(), config=st.sampled_from([tiny.CONFIG, SLIDING]), allocation=st.sampled_from([4, 64]))
def test_rows_of_different_lengths_each_get_what_they_get_alone(
    data: st.DataObject, config: Any, allocation: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tokenglass.model.engine.keys_values.FIRST_ALLOCATION", allocation)
        patched.setattr("tokenglass.model.engine.keys_values.SLACK", 3)
        engine = native(tiny.random_transformer(config))
        rows = [random_ids(200, rows=1)[0].roll(7 * row) for row in range(3)]
        cache = engine.new_cache(3)
        lengths = [0, 0, 0]
        for _ in range(data.draw(st.integers(1, 6))):
            count = data.draw(st.integers(1, 12))
            new = torch.stack([ids[length : length + count] for ids, length in zip(rows, lengths, strict=True)])
            got = as_tensor(engine.forward(new, cache, last=None))
            lengths = [length + count for length in lengths]
            for row, length in enumerate(lengths):
                alone = as_tensor(engine.forward(rows[row][None, :length], None, last=None))[0, -count:]
                assert torch.equal(got[row], alone)
            lengths = [cache.truncate(row, data.draw(st.integers(max(0, n - 9), n))) for row, n in enumerate(lengths)]


@pytest.mark.parametrize("sliding", [False, True])
def test_a_long_context_is_that_of_torch(sliding: bool) -> None:
    kinds = (LayerKind(ROPE, 200 if sliding else None), LayerKind(None))
    reference = TorchEngine(
        tiny.random_transformer(replace(LONG, layers=kinds, num_kv_heads=1)), torch.device("cpu"), torch.float32
    )
    engine = native(reference.model)
    ids = random_ids(700)
    expected = as_tensor(reference.forward(ids, None, last=None))
    assert expected.std() > 0.1
    cache = engine.new_cache(2)
    parts = [as_tensor(engine.forward(part, cache, last=None)) for part in ids.split([300, 380, *[1] * 20], dim=1)]
    assert_close(torch.cat(parts, dim=1), expected)
    assert torch.equal(torch.cat(parts, dim=1), as_tensor(engine.forward(ids, None, last=None)))


def test_caches_used_in_turn_are_told_apart_wherever_their_storage_goes() -> None:
    """One grows and slides, the other is cut back to a copy of its first row."""
    engine = native(tiny.random_transformer(SLIDING))
    ids = random_ids(90)
    first, second = engine.new_cache(2), engine.new_cache(2)
    as_tensor(engine.forward(ids, second))
    as_tensor(engine.forward(ids[:, :60], first))
    as_tensor(engine.forward(ids[:, :1], second))
    logits = as_tensor(engine.forward(ids[:, 60:], first))
    assert torch.equal(logits, as_tensor(engine.forward(ids, None)))
    second.select([0])
    again = torch.cat((ids[:1], ids[:1, :1], ids[:1, :20]), dim=1)
    assert torch.equal(as_tensor(engine.forward(again[:, -20:], second)), as_tensor(engine.forward(again, None)))


@pytest.mark.parametrize("cache_dtype", ["float32", "bfloat16", "int8"])
def test_what_memory_held_before_does_not_matter(cache_dtype: str) -> None:
    """Slots beyond a row's end are not looked at: in all of these, bytes of 255 are none."""
    engine = native(tiny.random_transformer(SLIDING), cache_dtype)
    ids = random_ids(30)
    cache = engine.new_cache(2)
    cache.reserve([64, 64])
    for row in cache.rows:
        for state in row.states:
            state.array.view(np.uint8).fill(255)
    assert torch.equal(
        as_tensor(engine.forward(ids, cache, last=None)), as_tensor(engine.forward(ids, None, last=None))
    )


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
def test_threads_and_prefill_change_no_greedy_text(kind: str, tokenizer: Tokenizer) -> None:
    model = tiny.random_transformer()
    if kind == "bfloat16":
        model.to(torch.bfloat16)
    elif kind != "float32":
        quantize_model(model, kind)
    engine = native(model)
    texts = set()
    for count, chunk, cached in ((1, 24, True), (2, 5, True), (4, 1, True), (2, 24, False)):
        torch.set_num_threads(count)
        request = Request(
            tuple(random_ids(20, rows=1)[0].tolist()),
            seed=1,
            sampling=SamplingParameters(temperature=0),
            max_new_tokens=60,
            prefill_chunk=chunk,
            use_cache=cached,
        )
        texts.add(tuple(tiny.new_tokens(list(decode(Job(engine, tokenizer, request))))))
    assert len(texts) == 1
    assert len(set(texts.pop())) > 3


def test_a_prompt_beyond_the_limit_is_refused_and_leaves_the_cache_as_it_was() -> None:
    engine = native(tiny.random_transformer())
    cache = engine.new_cache()
    as_tensor(engine.forward(random_ids(9, rows=1), cache))
    with pytest.raises(PromptError, match="do not fit"):
        as_tensor(engine.forward(random_ids(LIMIT, rows=1), cache))
    assert cache.lengths == [9]


def test_calls_from_several_threads_wait_for_each_other() -> None:
    engine = native(tiny.random_transformer())
    ids = random_ids(40)
    expected = as_tensor(engine.forward(ids, None, last=None))
    wrong: list[int] = []

    def ask(number: int) -> None:
        wrong.extend(
            number for _ in range(20) if not torch.equal(as_tensor(engine.forward(ids, None, last=None)), expected)
        )

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_weights_and_caches_that_the_kernels_do_not_know_are_named() -> None:
    model = tiny.random_transformer()
    assert native_parts.try_build(model, "float16", native_parts.compiled) == "they do not know a cache of float16"
    reason = native_parts.try_build(model.half(), "float32", native_parts.compiled)
    assert reason == "they do not know weights of float16"


def test_weights_on_large_pages_are_the_same_weights_side_by_side() -> None:
    arrays = [np.arange(count, dtype=np.float32).reshape(-1, 4) for count in (4, 400, 40_000)]
    arena = Arena(2**22)
    laid = [arena.copy(array) for array in arrays]
    for array, place in zip(arrays, laid, strict=True):
        assert np.array_equal(place, array)
        assert place.ctypes.data % 64 == 0
    places = [place.ctypes.data for place in laid]
    assert places == sorted(places)
    assert max(places) - min(places) < 2**21  # one piece of memory
    assert np.array_equal(Arena(2**21).copy(np.ones(2**20)), np.ones(2**20))  # full: memory of its own


def test_memory_that_is_not_promised_is_taken_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems that promise no more memory than they have refuse a large block."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("tokenglass.model.engine.large_pages.mmap.mmap", refuse)
    arena = Arena(2**40)  # nothing is taken before something is laid there
    assert np.array_equal(arena.copy(np.ones(2**19)), np.ones(2**19))
    assert not zeros((2**20,), np.dtype(np.float32)).any()


def test_the_cache_is_one_of_the_dtype_that_was_named() -> None:
    engine = native(tiny.random_transformer(), "bfloat16")
    cache = engine.new_cache(planned_length=WINDOW)
    assert isinstance(cache, KVCache)
    assert (cache.rows[0].layer(0)[0].dtype, cache.limit, cache.planned_length) == (BFLOAT16, 256, WINDOW)

"""A cache in fewer bits: what it holds, what that costs, and where there is one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import native_parts
import numpy as np
import pytest
import tiny
import torch
from native_parts import native
from numpy.typing import NDArray
from shell import assert_one_line_error, generate
from torch import Tensor
from torch_parts import as_tensor

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.engine.cache import CacheRow
from tokenglass.model.engine.memory import Caches, check_memory
from tokenglass.model.errors import EngineError, ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.torch_engine import storage
from tokenglass.model.torch_engine.engine import TorchEngine

ROPE = Rope(theta=10000.0, dim=8)
LONG = replace(tiny.CONFIG, max_positions=512)
SLIDING = replace(LONG, layers=(LayerKind(ROPE, 140), LayerKind(ROPE)))
ODD = replace(LONG, head_dim=18, attention_scale=0.25)  # no whole vectors, and vectors at odd addresses
CONFIGS = pytest.mark.parametrize("config", [LONG, SLIDING, ODD], ids=["plain", "sliding", "odd"])
STEPS = {"bfloat16": 2.0**-9, "int8": 1 / 127}  # of rounding, as shares of a vector's greatest number


def ids_of(count: int) -> list[list[int]]:
    return [[(29 * place + place * place // 7) % tiny.VOCAB_SIZE for place in range(count)]]


def dequantise(vectors: NDArray[np.int8]) -> NDArray[np.float32]:
    """Vectors (..., head_dim + 4) of int8, their scales behind them, as numbers."""
    scales = np.ascontiguousarray(vectors[..., -4:]).view(np.float32)
    return vectors[..., :-4] * scales


@CONFIGS
def test_int8_is_the_nearest_of_255_steps_up_to_the_greatest_number_of_each_vector(config: ModelConfig) -> None:
    model = tiny.random_transformer(config)
    arrays = []
    for dtype in ("float32", "int8"):
        engine = native(model, dtype)
        cache = engine.new_cache()
        engine.forward(ids_of(1), cache)  # of one position, the first layer's keys and values are the same in both
        arrays.append(np.stack(cache.rows[0].layer(0)[:2])[:, :, 0])
    exact, rounded = arrays
    greatest = np.abs(exact).max(-1, keepdims=True)
    assert greatest.min() > 0
    assert np.abs(rounded[..., :-4]).max(-1).min() == 127
    assert (np.abs(dequantise(rounded) - exact) <= greatest / 254 * 1.001).all()


def round_to(dtype: str, numbers: Tensor) -> Tensor:
    """What a cache of this dtype keeps of keys or values (..., head_dim)."""
    if dtype == "bfloat16":
        return numbers.bfloat16().float()
    scale = numbers.abs().amax(-1, keepdim=True) / 127
    return (numbers / scale).round() * scale


@CONFIGS
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_logits_are_those_of_torch_over_keys_and_values_that_were_rounded_so(
    config: ModelConfig, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nearer to them by far than to those of an exact cache."""
    model = tiny.random_transformer(config)
    reference = TorchEngine(model, torch.device("cpu"), torch.float32)
    exact = as_tensor(reference.forward(ids_of(300), reference.new_cache(), last=None))
    logits = as_tensor(native(model, dtype).forward(ids_of(300), None, last=None))

    def write(row: CacheRow, layer: int, keys: Tensor, values: Tensor) -> None:
        storage.write(row, layer, round_to(dtype, keys), round_to(dtype, values))

    monkeypatch.setattr("tokenglass.model.torch_engine.views.write", write)
    rounded = as_tensor(reference.forward(ids_of(300), reference.new_cache(), last=None))
    distance = (logits - exact).abs().max()
    assert (logits - rounded).abs().mean() < (logits - exact).abs().mean() / 20
    assert 0 < distance < 10 * STEPS[dtype] * exact.abs().max()


def test_its_bytes_are_those_of_the_real_arrays() -> None:
    for dtype, size in (("float32", 4 * 16), ("bfloat16", 2 * 16), ("int8", 16 + 4)):
        engine = native(tiny.random_transformer(replace(tiny.CONFIG, head_dim=16)), dtype)
        cache = engine.new_cache()
        engine.forward(ids_of(70), cache)
        usage = cache.usage()
        assert usage.bytes_per_token == 2 * engine.config.num_layers * engine.config.num_kv_heads * size
        assert usage.bytes_per_token == engine.config.cache_bytes_per_token(dtype)
        assert usage.nbytes_used == 70 * usage.bytes_per_token
        assert usage.nbytes_held == sum(state.array.nbytes for state in cache.rows[0].states)


def test_numbers_that_are_not_finite_stay_none() -> None:
    model = tiny.random_transformer()
    model.model.layers[0].self_attn.v_proj.weight[0, 0] = torch.nan
    assert np.isnan(native(model, "int8").forward(ids_of(5), None)[0]).all()


def test_memory_is_asked_for_the_cache_that_there_will_be(saved_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(saved_checkpoint)
    weights = checkpoint.num_parameters * 4
    for dtype in ("float32", "bfloat16", "int8"):
        needed = weights + (128 + 64) * tiny.CONFIG.cache_bytes_per_token(dtype)
        check_memory(checkpoint, "float32", dtype, Caches(100), needed)
        with pytest.raises(EngineError, match=f"in {dtype} need"):
            check_memory(checkpoint, "float32", dtype, Caches(100), needed - 1)


@pytest.mark.parametrize(
    ("quantize", "native_dtype"), [("none", "float32"), ("int8", "bfloat16"), ("int4", "bfloat16")]
)
def test_beside_quantised_weights_it_is_bfloat16_where_nothing_is_named(
    saved_checkpoint: Path, quantize: str, native_dtype: str
) -> None:
    native_parts.compiled()
    for backend, expected in (("native", native_dtype), ("torch", "float32")):
        loaded = load_model(saved_checkpoint, device="cpu", backend=backend, quantize=quantize)
        assert (loaded.cache_dtype, loaded.dtype) == (expected, "float32")
        cache = loaded.engine.new_cache()
        assert cache.usage().bytes_per_token == tiny.CONFIG.cache_bytes_per_token(expected)
    named = load_model(saved_checkpoint, device="cpu", backend="native", quantize=quantize, cache_dtype="float32")
    assert named.cache_dtype == "float32"


def test_torch_refuses_one_that_it_does_not_compute_in(saved_checkpoint: Path) -> None:
    for dtype in ("bfloat16", "int8"):
        with pytest.raises(ParameterError, match=f"--cache-dtype {dtype} is for the native kernels; torch keeps"):
            load_model(saved_checkpoint, device="cpu", backend="torch", cache_dtype=dtype)
    assert load_model(saved_checkpoint, device="cpu", backend="torch", cache_dtype="float32").cache_dtype == "float32"


def test_every_record_and_the_summary_tell_of_it() -> None:
    native_parts.compiled()
    done = generate("The fox", "-n", "3", "--seed", "1", "--cache-dtype", "int8", "--jsonl", "--stats")
    run, *steps, _ = map(json.loads, done.stdout.splitlines())
    assert run["engine"]["cache_dtype"] == "int8"
    config = Checkpoint.open(bundled_folder()).config
    assert {step["cache"]["bytes_per_token"] for step in steps} == {config.cache_bytes_per_token("int8")}
    assert "float32, cache in int8, on cpu (native)" in done.stderr.decode()


def test_a_way_without_kernels_is_one_line() -> None:
    assert_one_line_error(generate("x", "--backend", "torch", "--cache-dtype", "int8"), 2, "--cache-dtype int8")
    assert_one_line_error(generate("x", "--dtype", "bfloat16", "--quantize", "int8"), 2, "--cache-dtype is that of")

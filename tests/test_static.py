"""Decode steps over static storage are those of an ordinary pass: on a CPU without graphs, on a GPU with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import CASES, random_ids, save
from numpy.testing import assert_allclose
from torch_parts import load_engine, quantize_model

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised import Format
from tokenglass.model.inspection.fork import blocks
from tokenglass.model.torch_engine.engine import TorchEngine
from tokenglass.model.torch_engine.static import StaticSteps, is_static

FAMILIES = (
    *("llama, biases", "llama, yarn", "mistral, window", "gemma2", "gemma3_text", "qwen3", "phi3, longrope"),
    *("gpt2", "cohere2", "olmo2", "granite"),
)
HAS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")
CPU_AND_GPU = ["cpu", pytest.param("cuda", marks=HAS_CUDA)]


def both(folder: Path, name: str, device: str) -> tuple[TorchEngine, TorchEngine]:
    """An engine that makes ordinary passes, and one over the same weights with static steps."""
    save(folder, *CASES[name])
    plain = load_engine(Checkpoint.open(folder), dtype="float32", device=device)
    assert is_static(plain.model)
    steps = StaticSteps(plain.model, has_graphs=device == "cuda")
    return TorchEngine(plain.model, plain.device, plain.dtype), TorchEngine(
        plain.model, plain.device, plain.dtype, steps
    )


@pytest.mark.parametrize("device", CPU_AND_GPU)
@pytest.mark.parametrize("name", FAMILIES)
def test_steps_over_static_storage_give_the_logits_of_ordinary_passes(name: str, device: str, tmp_path: Path) -> None:
    """Storage grows, windows let go of what is old, and texts go back and on."""
    engines = both(tmp_path, name, device)
    caches = [engine.new_cache(2, planned_length=100) for engine in engines]
    ids = random_ids(100)[0].tolist()

    def forward(rows: list[list[int]]) -> list[np.ndarray]:
        plain, static = (engine.forward(rows, cache) for engine, cache in zip(engines, caches, strict=True))
        for one, other in zip(plain, static, strict=True):
            assert_allclose(other, one, rtol=1e-4, atol=1e-4)
        return static

    forward([ids[:9], ids[3:5]])
    for token_id in ids[9:80]:
        forward([[token_id], []])
    forward([[], ids[5:6]])
    forward([[5], [6]])
    for cache in caches:
        cache.truncate(0, 0)
    forward([ids[20:60], []])
    for token_id in ids[60:75]:
        forward([[token_id], []])
    for cache in caches:
        cache.truncate(0, len(cache.rows[0].token_ids) - 2)
    forward([ids[:4], []])
    assert forward([ids[4:5], []])[0].std() > 0.1
    assert caches[0].lengths == caches[1].lengths


def test_logits_that_were_given_are_not_written_over(tmp_path: Path) -> None:
    _, static = both(tmp_path, "qwen3", "cpu")
    cache = static.new_cache()
    static.forward([[1, 2, 3]], cache)
    first = static.forward([[4]], cache)[0]
    copy = first.copy()
    static.forward([[5]], cache)
    assert (first == copy).all()


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_quantised_weights_take_no_static_steps(format: Format, tmp_path: Path) -> None:  # noqa: A002
    plain, _ = both(tmp_path, "qwen3", "cpu")
    quantize_model(plain.model, format)
    assert not is_static(plain.model)


def test_a_kind_of_module_that_nobody_has_looked_at_is_not_static(tmp_path: Path) -> None:
    plain, _ = both(tmp_path, "qwen3", "cpu")
    model = plain.model
    blocks(model)[0].add_module("router", torch.nn.Softmax(-1))
    assert not is_static(model)


@HAS_CUDA
def test_a_gpu_makes_its_steps_by_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, static = both(tmp_path, "qwen3", "cuda")
    replays: list[int] = []
    replay = torch.cuda.CUDAGraph.replay

    def count(graph: torch.cuda.CUDAGraph) -> None:
        replays.append(1)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", count)
    cache = static.new_cache(planned_length=40)
    static.forward([[1, 2, 3]], cache)
    for token_id in range(20):
        static.forward([[token_id]], cache)
    assert len(replays) == 19

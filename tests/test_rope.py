"""Rotary frequencies equal those of transformers, for any settings of each scaling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.rope_config import Dynamic, LongRope, Rope, Scaling
from tokenglass.model.engine.rotary import rotary_frequencies, rotary_table
from tokenglass.model.torch_engine.rope import rotary_cosines, rotate

CPU = torch.device("cpu")
FACTORS = st.floats(1.0, 64.0)
TRAINED = st.integers(64, 10_000)
LENGTHS = st.integers(1, 40_000)
PAIRS = st.lists(st.floats(0.5, 60.0), min_size=8, max_size=8)


def both(rope: dict[str, Any], length: int, most: int = 40_960) -> tuple[Any, Any]:
    """(frequencies, factor) by transformers and by us, for heads of 16."""
    from transformers import LlamaConfig  # noqa: PLC0415  (takes seconds)
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: PLC0415

    sizes = {"hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": most}
    theirs = ROPE_INIT_FUNCTIONS[rope["rope_type"]](LlamaConfig(**sizes, rope_parameters=dict(rope)), CPU, length)
    raw = {"model_type": "llama", "vocab_size": 9, "intermediate_size": 9, "num_hidden_layers": 1, **sizes}
    kind = ModelConfig.from_hf({**raw, "rope_parameters": rope}).layers[0]
    assert kind.rope is not None
    frequencies, factor = rotary_frequencies(kind.rope, length)
    return theirs, (torch.from_numpy(frequencies), factor)


def check(rope: dict[str, Any], length: int = 1, most: int = 40_960) -> None:
    (theirs, their_factor), (ours, our_factor) = both({"rope_theta": 10_000.0, **rope}, length, most)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    assert our_factor == pytest.approx(their_factor, rel=1e-9)


@given(factor=FACTORS, theta=st.floats(100.0, 1e7))
def test_linear(factor: float, theta: float) -> None:
    check({"rope_type": "linear", "factor": factor, "rope_theta": theta})


@given(factor=FACTORS, theta=st.floats(100.0, 1e7), share=st.floats(0.0, 1.0))
def test_proportional(factor: float, theta: float, share: float) -> None:
    check({"rope_type": "proportional", "factor": factor, "rope_theta": theta, "partial_rotary_factor": share})


@given(factor=FACTORS, trained=TRAINED, length=LENGTHS)
def test_dynamic(factor: float, trained: int, length: int) -> None:
    check({"rope_type": "dynamic", "factor": factor}, length, trained)


@given(factor=FACTORS, trained=TRAINED, theta=st.floats(100.0, 1e7), truncate=st.booleans(), data=st.data())
def test_yarn(factor: float, trained: int, theta: float, truncate: bool, data: st.DataObject) -> None:
    some = st.sampled_from(
        [{}, {"mscale": 0.7, "mscale_all_dim": 0.4}, {"attention_factor": 1.3}, {"beta_fast": 20, "beta_slow": 3}]
    )
    options = {"factor": factor, "original_max_position_embeddings": trained, "truncate": truncate, "rope_theta": theta}
    check({"rope_type": "yarn", **options, **data.draw(some)})


@given(factor=FACTORS, trained=TRAINED, low=st.floats(0.5, 4.0), more=st.floats(0.5, 8.0))
def test_llama3(factor: float, trained: int, low: float, more: float) -> None:
    options = {"low_freq_factor": low, "high_freq_factor": low + more, "original_max_position_embeddings": trained}
    check({"rope_type": "llama3", "factor": factor, **options})


@given(short=PAIRS, long=PAIRS, trained=TRAINED, length=LENGTHS, factor=st.none() | FACTORS)
def test_longrope(short: list[float], long: list[float], trained: int, length: int, factor: float | None) -> None:
    options = {"short_factor": short, "long_factor": long, "original_max_position_embeddings": trained}
    check({"rope_type": "longrope", **options, **({} if factor is None else {"factor": factor})}, length)


def test_a_run_s_factors_depend_on_its_planned_length_alone() -> None:
    rope = Rope(100.0, 4, LongRope(8, 1.5, (1.0, 2.0), (4.0, 8.0)))
    positions = torch.arange(4)[None]
    tables = {length: rotary_cosines(rope, positions, length, torch.float32) for length in (4, 8, 9, 50)}
    assert torch.equal(tables[4][0], tables[8][0])
    assert torch.equal(tables[9][0], tables[50][0])
    assert not torch.equal(tables[8][0], tables[9][0])
    assert [rope.regime(length) for length in (4, 8, 9, 50)] == [0, 0, 1, 1]
    dynamic = Rope(100.0, 4, Dynamic(2.0, 8))
    assert [dynamic.regime(length) for length in (4, 8, 9, 50)] == [8, 8, 9, 50]


@pytest.mark.parametrize("scaling", [None, LongRope(8, 1.5, (1.0, 2.0), (4.0, 8.0)), Dynamic(2.0, 8)])
def test_tables_in_numpy_are_those_of_torch(scaling: Scaling | None) -> None:
    rope = Rope(100.0, 4, scaling)
    for ours, theirs in zip(
        rotary_table(rope, 300, 300), rotary_cosines(rope, torch.arange(300)[None], 300, torch.float32), strict=True
    ):
        torch.testing.assert_close(torch.from_numpy(ours), theirs[0, 0, :, :2], rtol=0, atol=1e-6)


@settings(max_examples=20)
@given(position=st.integers(0, 5000), shift=st.integers(0, 500))
def test_products_depend_on_the_distance_only(position: int, shift: int) -> None:
    rope = Rope(10_000.0, 6)
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn((2, 1, 1, 1, 8), generator=generator)

    def product(at: int) -> torch.Tensor:
        tables = [rotary_cosines(rope, torch.tensor([[p]]), 1, torch.float32) for p in (at + 7, at)]
        return (rotate(query, tables[0]) * rotate(key, tables[1])).sum()

    torch.testing.assert_close(product(position + shift), product(position), rtol=0, atol=5e-3)
    table = rotary_cosines(rope, torch.tensor([[position]]), 1, torch.float32)
    assert torch.equal(rotate(query, table)[..., 6:], query[..., 6:])  # what is not rotary passes

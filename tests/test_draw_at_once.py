"""The kernels draw in one call what the chain draws processor by processor."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from native_parts import compiled
from test_measure import logits

from tokenglass.model.errors import EngineError, NothingPossible
from tokenglass.model.native_engine.measure import KernelMeasure
from tokenglass.model.records.steps import Choice
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.sampler import Sampler

TRUNCATIONS = ("top-k", "top-p", "min-p")


def piece(token_id: int) -> bytes:
    return str(token_id).encode()


@st.composite
def samplers(draw: st.DrawFn) -> Sampler:
    parameters = SamplingParameters(
        temperature=draw(st.just(0.0) | st.just(1.0) | st.floats(1e-3, 100)),
        top_k=draw(st.just(0) | st.integers(1, 5000)),
        top_p=draw(st.floats(0, 1)),
        min_p=draw(st.just(0.0) | st.floats(0, 1)),
        samplers=("temperature", *draw(st.permutations(TRUNCATIONS))),
    )
    return Sampler(parameters, piece, draw(st.integers(0, 32)), KernelMeasure(compiled()))


@st.composite
def masks(draw: st.DrawFn) -> tuple[Mask, ...]:
    """Which remove some of the first tokens, the same ones too, and some that no model has."""
    ids = st.lists(st.integers(0, 12) | st.integers(0, 5000), max_size=8).map(tuple)
    names = draw(st.sampled_from([(), ("ban",), ("ignore-eos",), ("ban", "min-new-tokens")]))
    return tuple(Mask(name, removed=draw(ids)) for name in names)


def by_parts(sampler: Sampler, logits: np.ndarray, context: Context) -> Choice:
    other = Sampler(SamplingParameters(), piece, sampler.top, sampler.measure)
    other.chain, other.is_greedy, other.drawer = sampler.chain, sampler.is_greedy, None
    return other.choose(logits, context)


@settings(max_examples=300)
@given(sampler=samplers(), logits=logits(), seed=st.integers(0, 999), masks=masks())
def test_it_draws_what_the_chain_draws(
    sampler: Sampler, logits: np.ndarray, seed: int, masks: tuple[Mask, ...]
) -> None:
    assume(math.isfinite(logits.max()))
    context = Context((1, 2, 3), 2, seed, masks=masks)
    assert sampler.drawer is not None
    try:
        expected = by_parts(sampler, logits, context)
    except NothingPossible:
        with pytest.raises(NothingPossible):
            sampler.choose(logits, context)
        return
    for given_logits in (logits, sampler.raw(logits)):
        assert_same(sampler.choose(given_logits, context), expected)


def assert_same(choice: Choice, expected: Choice) -> None:
    """All but the last bit of a probability, since an exponential may be rounded otherwise."""
    probs, expected_probs = ([each.prob for each in some.candidates] for some in (choice, expected))
    assert probs == pytest.approx(expected_probs, rel=1e-14, abs=1e-300)
    assert choice.prob == pytest.approx(expected.prob, rel=1e-14)
    unweighed = tuple([replace(each, prob=None) for each in choice.candidates])
    assert unweighed == tuple([replace(each, prob=None) for each in expected.candidates])
    assert replace(choice, candidates=(), prob=None) == replace(expected, candidates=(), prob=None)


def test_it_decides_nearly_all_that_models_ask_for() -> None:
    sampler = Sampler(SamplingParameters(), piece, 5, KernelMeasure(compiled()))
    assert sampler.drawer is not None
    some = np.random.default_rng(0).normal(scale=3, size=(50, 4096)).astype(np.float32)
    assert all(sampler.drawer(row, 0.5, masks) for row in some for masks in ((), (Mask("ban", removed=(7,)),)))


@pytest.mark.parametrize(
    "parameters",
    [
        SamplingParameters(repetition_penalty=1.1),
        SamplingParameters(temperature=0.0, repetition_penalty=1.1),
        SamplingParameters(typical_p=0.9),
        SamplingParameters(samplers=("top-p", "temperature")),
    ],
)
def test_a_chain_with_another_part_is_left_to_the_chain(parameters: SamplingParameters) -> None:
    assert Sampler(parameters, piece, 5, KernelMeasure(compiled())).drawer is None


def test_a_mask_that_allows_certain_tokens_is_left_to_the_chain() -> None:
    sampler = Sampler(SamplingParameters(temperature=0.0), piece, 5, KernelMeasure(compiled()))
    some, allowed = np.arange(100, dtype=np.float32), np.arange(100) < 50
    mask = Mask("regex", allowed=allowed)
    assert sampler.drawer is not None
    assert sampler.drawer(some, 0.0, (mask,)) is None
    assert sampler.choose(some, Context((1,), 1, 0, masks=(mask,))).token_id == 49


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    some = np.zeros(100, np.float32)
    some[40] = bad
    with pytest.raises(EngineError, match="not numbers"):
        Sampler(SamplingParameters(), piece, 5, KernelMeasure(compiled())).choose(some, Context((1,), 1, 0))

"""The kernels measure a position's logits as numpy does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_parts import compiled

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.errors import EngineError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.native_engine.measure import KernelMeasure
from tokenglass.model.sampling.raw import Raw

# Few different numbers bring ties, wide ones exponentials of every size; minus infinity is what cannot come.
few = st.sampled_from([0.0, 1.0, -0.0, 2.5, -math.inf])
wide = st.floats(-1e4, 1e4, width=32) | st.floats(-(2.0**120), 2.0**120, width=32) | st.just(-math.inf)


@st.composite
def logits(draw: st.DrawFn) -> np.ndarray:
    some = draw(st.lists(draw(st.sampled_from([few, wide])), min_size=1, max_size=70))
    noise = np.random.default_rng(draw(st.integers(0, 99))).normal(size=draw(st.integers(0, 3000))).astype(np.float32)
    return np.concatenate((np.array(some, np.float32), noise))


@pytest.fixture(scope="module")
def tale() -> LoadedModel:
    return load_model(bundled_folder(), backend="native")


@settings(max_examples=300)
@given(logits=logits(), count=st.integers(1, 600))
def test_it_finds_what_numpy_finds(logits: np.ndarray, count: int) -> None:
    if not math.isfinite(logits.max()):
        with pytest.raises(EngineError, match="not numbers"):
            KernelMeasure(compiled())(logits, count)
        return
    actual, expected = KernelMeasure(compiled())(logits, count), Raw.of(logits, count)
    assert actual.peak == expected.peak
    below = actual.below()
    weights = np.exp(below)
    assert actual.mass == pytest.approx(math.fsum(weights), rel=1e-14)  # added without an error
    weighted = math.fsum(weight * x for weight, x in zip(weights, below, strict=True) if weight)
    assert actual.weighted == pytest.approx(weighted, rel=1e-13, abs=1e-300)
    order = np.lexsort((np.arange(len(below)), -below))
    possible = np.count_nonzero(below > -math.inf)
    num_candidates = len(actual.head.token_ids)
    assert num_candidates >= min(count, possible)
    assert actual.head.is_complete <= (num_candidates == possible)
    assert actual.head.token_ids.tolist() == order[:num_candidates].tolist()
    assert actual.head.values.tolist() == below[order[:num_candidates]].tolist()
    assert num_candidates == possible or below[order[num_candidates]] < actual.head.values[-1]


@settings(max_examples=100)
@given(
    rows=st.lists(st.integers(0, 99), min_size=1, max_size=9),
    count=st.integers(1, 600),
    bad=st.sampled_from([None, math.nan, math.inf]),
    flat=st.booleans(),
)
def test_several_positions_at_once_are_measured_as_one_by_one(
    tale: LoadedModel, rows: list[int], count: int, bad: float | None, flat: bool
) -> None:
    logits = [np.random.default_rng(seed).normal(scale=4, size=6000).astype(np.float32) for seed in rows]
    if flat:
        logits[0][:] = 1.0  # more tokens in its head than there is room for
    if bad is not None:
        logits[-1][7] = bad
    alone = tale.engine.measure
    for own, measured in zip(logits, tale.engine.measure_each(logits, count), strict=True):
        if not isinstance(measured, Raw):
            assert measured is own
            continue
        expected = alone(own, count)
        assert (measured.peak, measured.mass, measured.weighted) == (expected.peak, expected.mass, expected.weighted)
        assert measured.head.token_ids.tolist() == expected.head.token_ids.tolist()
        assert measured.head.values.tolist() == expected.head.values.tolist()
        assert measured.head.is_complete == expected.head.is_complete
        assert measured.mass_at(0.7) == expected.mass_at(0.7)
    are_measured = [isinstance(each, Raw) for each in tale.engine.measure_each(logits, count)]
    assert are_measured[1:-1] == [True] * (len(rows) - 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 40, 99])
def test_logits_that_are_no_numbers_are_refused(bad: float, place: int) -> None:
    logits = np.zeros(100, np.float32)
    logits[place] = bad
    with pytest.raises(EngineError, match="not numbers"):
        KernelMeasure(compiled())(logits, 5)


def test_wider_and_scattered_logits_are_measured_too() -> None:
    logits = np.random.default_rng(1).normal(size=400)
    assert KernelMeasure(compiled())(logits, 5).mass == Raw.of(logits, 5).mass
    assert (
        KernelMeasure(compiled())(logits.astype(np.float32)[::2], 5).mass
        == Raw.of(logits.astype(np.float32)[::2], 5).mass
    )


@settings(max_examples=200)
@given(
    logits=logits().filter(lambda actual: math.isfinite(actual.max())),
    temperature=st.floats(5e-324, 1e300) | st.just(0.8),
)
def test_the_mass_at_a_temperature_is_that_of_numpy(logits: np.ndarray, temperature: float) -> None:
    actual, expected = KernelMeasure(compiled())(logits, 5), Raw.of(logits, 5)
    with np.errstate(over="ignore"):
        exact = math.fsum(np.exp(actual.below() / temperature))
    assert actual.mass_at(temperature) == pytest.approx(exact, rel=1e-14)
    assert expected.mass_at(temperature) == pytest.approx(exact, rel=1e-14)

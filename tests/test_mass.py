"""The mass of a distribution in float32 keeps its bound, and top-p cuts where the mass in float64 says."""

from __future__ import annotations

import math
import platform
import subprocess
from ctypes import c_double, c_int64, c_void_p
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from native_parts import compiled
from test_draw_at_once import assert_same, by_parts, piece
from test_measure import logits

from tokenglass.model.native_engine.build import find_compiler
from tokenglass.model.native_engine.levels import Level, read_levels, usable_levels
from tokenglass.model.native_engine.measure import KernelMeasure
from tokenglass.model.native_engine.processor import describe_processor, processor_flags
from tokenglass.model.native_engine.sources import FOLDER
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.sampler import Sampler

MASS_ERROR = 2.0**-17  # of measure.h
ULP = 2.0**-23
LEVELS = usable_levels(read_levels(platform.machine()), processor_flags(describe_processor()))
# The largest relative error of exp_of, against the C library's in double, for every 31st float from -87.3 to -2**-30.
EXPONENTIALS = """
#include <stdio.h>
#include "vectors.h"
int main(void) {
    double most = 0;
    for (int32_t bits = 0xB0800000; bits < (int32_t)0xC2AE9999; bits += 31 * LANES) {
        vec x = (vec)(bits + 31 * iota()), power = exp_of(x);
        for (int i = 0; i < LANES; i++)
            if (x[i] >= -87.3f) most = fmax(most, fabs(power[i] / exp(x[i]) - 1));
    }
    printf("%a", most);
}
"""


@pytest.mark.parametrize("level", LEVELS, ids=[level.name for level in LEVELS])
def test_an_exponential_is_within_two_units_in_the_last_place(level: Level, tmp_path: Path) -> None:
    (every,) = read_levels("every")
    source, program = tmp_path / "exponentials.c", tmp_path / "exponentials"
    source.write_text(EXPONENTIALS)
    options = [*every.options, *level.options, "-Wno-psabi", f"-I{FOLDER}"]
    subprocess.run([*find_compiler(), *options, str(source), "-o", str(program), "-lm"], check=True)
    answer = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    assert 0 < float.fromhex(answer) <= 2 * ULP


def mass_near(logits: np.ndarray, temperature: float) -> float:
    function = compiled().tokenglass_mass_near
    function.argtypes, function.restype = [c_void_p, c_int64, c_double, c_double], c_double
    return function(logits.ctypes.data, len(logits), float(logits.max()), temperature)


def exact_mass(logits: np.ndarray, temperature: float) -> float:
    with np.errstate(over="ignore"):
        return math.fsum(np.exp((logits.astype(np.float64) - float(logits.max())) / temperature))


@settings(max_examples=200)
@given(
    logits=logits().filter(lambda actual: math.isfinite(actual.max())),
    temperature=st.floats(0.01, 100) | st.floats(5e-324, 1e300),
)
def test_the_mass_in_float32_keeps_its_bound(logits: np.ndarray, temperature: float) -> None:
    assert mass_near(logits, temperature) == pytest.approx(exact_mass(logits, temperature), rel=MASS_ERROR)


@settings(max_examples=200)
@given(
    size=st.integers(1, 200_000), below=st.floats(0, 90), peak=st.floats(-100, 100), temperature=st.floats(0.01, 100)
)
def test_it_does_where_all_terms_err_alike(size: int, below: float, peak: float, temperature: float) -> None:
    logits = np.full(size, peak - below * temperature, np.float32)
    logits[0] = peak
    assert mass_near(logits, temperature) == pytest.approx(exact_mass(logits, temperature), rel=MASS_ERROR)


@settings(max_examples=300)
@given(
    seed=st.integers(0, 999),
    spread=st.floats(0.5, 6),
    temperature=st.floats(0.3, 2),
    kept=st.integers(1, 30),
    exponent=st.floats(-12, -4),
    above=st.booleans(),
)
def test_top_p_cuts_where_the_mass_in_float64_says(
    seed: int, spread: float, temperature: float, kept: int, exponent: float, *, above: bool
) -> None:
    """Also where the bounds of the mass leave it open: p is next to what the `kept` most probable tokens hold."""
    logits = np.random.default_rng(seed).normal(scale=spread, size=4096).astype(np.float32)
    probs = np.sort(np.exp((logits.astype(np.float64) - float(logits.max())) / temperature))[::-1]
    probs /= exact_mass(logits, temperature)
    p = probs[:kept].sum() * (1 + 10**exponent if above else 1 - 10**exponent)
    assume(p < 1)
    sampler = Sampler(SamplingParameters(temperature=temperature, top_p=p), piece, 32, KernelMeasure(compiled()))
    context = Context((1,), 1, seed)
    choice = sampler.choose(logits, context)
    assert_same(choice, by_parts(sampler, logits, context))
    size = int(np.searchsorted(probs.cumsum(), p)) + 1
    assert sum(each.removed_by is None for each in choice.candidates) == min(size, 32)

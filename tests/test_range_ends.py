"""Every sampling parameter at both ends of its range, and where it is off; the command line's ranges are the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokenglass.cli.app import generate_app
from tokenglass.model.errors import ParameterError
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.parameters import SETTINGS, SamplingParameters
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.sampling.settings import MOST, Number

TEXT = [3, 1, 2, 3, 1]  # its last two tokens occurred before
OFF: dict[str, float] = {
    **dict.fromkeys(("top_k", "min_p", "top_n_sigma", "presence_penalty", "frequency_penalty"), 0),
    **dict.fromkeys(("no_repeat_ngram_size", "dry_multiplier", "xtc_probability"), 0),
    **dict.fromkeys(("temperature", "top_p", "typical_p", "repetition_penalty"), 1),
}
NUMBERS = {name: setting for name, setting in SETTINGS.items() if isinstance(setting, Number)}
PLAIN = SamplingParameters(temperature=1.0, top_p=1.0)


@st.composite
def logits(draw: st.DrawFn) -> Tensor:
    """No two alike, so that there is one right order."""
    size = draw(st.integers(1, 400))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    spread = torch.randperm(size, generator=generator) + torch.rand(size, generator=generator) / 2
    return spread * draw(st.sampled_from([1e-3, 0.1, 3.0]))


def final(parameters: SamplingParameters, scores: Tensor, text: list[int]) -> np.ndarray:
    return Sampler(parameters, lambda _: b"").distribution(scores, Context(text, 0, 1)).final


@given(scores=logits())
@pytest.mark.parametrize("name", OFF)
def test_a_parameter_that_is_off_changes_nothing(name: str, scores: Tensor) -> None:
    off = SamplingParameters(**{"temperature": 1.0, "top_p": 1.0, name: OFF[name]})
    np.testing.assert_allclose(final(off, scores, TEXT), scores.double().softmax(-1).numpy(), rtol=1e-9)


@given(scores=logits())
@pytest.mark.parametrize("end", [0, 1], ids=["least", "most"])
@pytest.mark.parametrize("name", NUMBERS)
def test_at_the_ends_of_a_range_something_is_left_to_draw(name: str, end: int, scores: Tensor) -> None:
    if name == "guidance_scale":
        return  # needs a negative prompt; test_guidance.py
    number = NUMBERS[name]
    value = (number.least, number.most)[end]
    others = {"dry_multiplier": 1.0} if name.startswith("dry_") else {}
    others |= {"xtc_probability": 1.0} if name == "xtc_threshold" else {}
    parameters = SamplingParameters(
        **{"temperature": 1.0, "top_p": 1.0, **others, name: int(value) if number.is_whole else value}
    )
    probs = final(parameters, scores, TEXT)
    assert math.fsum(probs) == pytest.approx(1)
    assert probs.min() >= 0


def warpers() -> dict[str, Any]:
    """A parameter at an end of its range, and what transformers has for it."""
    from transformers.generation import logits_process as theirs  # noqa: PLC0415  (takes seconds)

    return {
        "top_k=1": theirs.TopKLogitsWarper(1),
        "top_k=9007199254740991": theirs.TopKLogitsWarper(2**53 - 1),
        "top_p=0.0": theirs.TopPLogitsWarper(0.0),
        "top_p=1e-300": theirs.TopPLogitsWarper(1e-300),
        "min_p=1.0": theirs.MinPLogitsWarper(1.0),
        "min_p=5e-324": theirs.MinPLogitsWarper(5e-324),
        "typical_p=1e-300": theirs.TypicalLogitsWarper(1e-300),
        "temperature=1e-30": theirs.TemperatureLogitsWarper(1e-30),
        "temperature=1e+30": theirs.TemperatureLogitsWarper(1e30),
        "repetition_penalty=1000.0": theirs.RepetitionPenaltyLogitsProcessor(1e3),
        "repetition_penalty=0.001": theirs.RepetitionPenaltyLogitsProcessor(1e-3),
    }


@given(data=st.data(), scores=logits())
def test_at_the_ends_the_distribution_is_that_of_transformers(data: st.DataObject, scores: Tensor) -> None:
    case, warper = data.draw(st.sampled_from(sorted(warpers().items(), key=lambda item: item[0])))
    name, _, value = case.partition("=")
    text = [token_id for token_id in TEXT if token_id < len(scores)]
    expected = warper(torch.tensor([text], dtype=torch.long), scores.double()[None])[0].softmax(-1).numpy()
    if np.isnan(expected).any():  # infinite scores, of which theirs has no distribution
        return
    setting = {name: int(value) if NUMBERS[name].is_whole else float(value)}
    ours = final(SamplingParameters(**{"temperature": 1.0, "top_p": 1.0, **setting}), scores, text)
    np.testing.assert_allclose(ours, expected, atol=1e-9)


@given(scores=logits())
def test_at_0_top_p_is_greedy_and_typical_p_takes_the_most_typical(scores: Tensor) -> None:
    best = int(scores.argmax())
    assert final(SamplingParameters(temperature=1.0, top_p=0.0), scores, [])[best] == 1.0
    raw = scores.double().log_softmax(-1)
    distance = (-raw + (raw.exp() * raw).sum()).abs()
    typical = final(SamplingParameters(temperature=1.0, top_p=1.0, typical_p=0.0), scores, [])
    assert distance[np.flatnonzero(typical)].max() <= distance.min() + 1e-9


@given(scores=logits())
def test_at_threshold_0_all_are_top_choices_and_the_least_probable_is_left(scores: Tensor) -> None:
    """As llama.cpp's sampler and the first description have it."""
    every = final(SamplingParameters(temperature=1.0, top_p=1.0, xtc_probability=1.0, xtc_threshold=0.0), scores, [])
    assert every[int(scores.argmin())] == 1.0


NOT_NUMBERS = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("name", NUMBERS)
def test_beyond_a_range_and_what_is_no_number_is_refused_by_name(name: str) -> None:
    least, most = NUMBERS[name].least, NUMBERS[name].most
    beyond = [math.nextafter(least, -math.inf), *([] if most == MOST else [math.nextafter(most, math.inf)])]
    for value in (*NOT_NUMBERS, *beyond):
        with pytest.raises(ParameterError, match=f"^{name} is .*expected "):
            SamplingParameters(**{name: value})


@pytest.mark.parametrize("name", [name for name in NUMBERS if name != "guidance_scale"])
def test_an_option_has_its_parameters_range(name: str) -> None:
    option: Any
    (option,) = (option for option in typer.main.get_command(generate_app()).params if option.name == name)
    number = NUMBERS[name]
    assert (option.min, option.max) == (number.least, number.most if number.most < MOST else None)

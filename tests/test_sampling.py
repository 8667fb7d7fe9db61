"""From logits to a choice: the processors, what they cut and why, the draw, and the numbers of a Choice."""

from __future__ import annotations

import math
from typing import Any

import chi_square
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import EngineError, ParameterError
from model.sampling.draw import uniform
from model.sampling.parameters import SamplingParameters, defaults_from, not_applied
from model.sampling.processors import PREFIX, MinP, Processor, Temperature, TopK, TopP
from model.sampling.sampler import Sampler, inverse_cdf
from model.steps import Candidate, Choice

PLAIN = SamplingParameters(temperature=1.0, top_p=1.0)


def logprobs(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def kept(processor: Processor, *probabilities: float) -> list[int]:
    """Ids that a processor leaves of this distribution."""
    return (processor(logprobs(*probabilities)) > -math.inf).nonzero()[:, 0].tolist()


def sampler(parameters: SamplingParameters = PLAIN, seed: int = 1, top: int = 5) -> Sampler:
    return Sampler(parameters, seed, lambda token_id: b"<%d>" % token_id, top)


@st.composite
def random_logits(draw: st.DrawFn, largest: int = 3 * PREFIX) -> Tensor:
    """Logits of every sharpness; rounded ones are full of ties; some tokens may be impossible."""
    size = draw(st.integers(1, largest))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits = torch.randn(size, generator=generator) * draw(st.sampled_from([0.01, 1.0, 4.0, 20.0]))
    if draw(st.booleans()):
        logits = logits.round()
    if draw(st.booleans()):
        logits[torch.rand(size, generator=generator) < 0.3] = -math.inf
        logits[draw(st.integers(0, size - 1))] = 1.0
    return logits


def warper(name: str, value: float) -> Any:
    from transformers.generation import logits_process  # noqa: PLC0415  (takes seconds)

    return getattr(logits_process, name)(value)


@pytest.mark.parametrize("size", [50, 4000])
@pytest.mark.parametrize("spread", [0.5, 3.0, 10.0])
@pytest.mark.parametrize(
    ("processor", "theirs", "value"),
    [
        *((Temperature(t), "TemperatureLogitsWarper", t) for t in (0.1, 0.8, 1.7)),
        *((TopK(k), "TopKLogitsWarper", k) for k in (1, 7, 40, 300)),
        *((TopP(p), "TopPLogitsWarper", p) for p in (0.01, 0.5, 0.95, 0.9999)),
        *((MinP(p), "MinPLogitsWarper", p) for p in (0.001, 0.1, 0.9)),
    ],
)
def test_each_processor_gives_what_the_one_of_transformers_gives(
    processor: Processor, theirs: str, value: float, spread: float, size: int
) -> None:
    rows = torch.randn(4, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64) * spread
    expected = warper(theirs, value)(None, rows).softmax(-1)
    for scores in (processor(rows), torch.stack([processor(row) for row in rows])):  # as a batch, and one by one
        found = scores.softmax(-1)
        assert torch.equal(found > 0, expected > 0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_top_k_keeps_what_is_as_probable_as_the_last_kept() -> None:
    assert kept(TopK(2), 0.1, 0.4, 0.2, 0.3) == [1, 3]
    assert kept(TopK(2), 0.25, 0.4, 0.25, 0.1) == [0, 1, 2]
    assert kept(TopK(9), 0.5, 0.5) == [0, 1]


def test_top_p_keeps_the_fewest_that_hold_the_mass() -> None:
    assert kept(TopP(0.6), 0.1, 0.4, 0.2, 0.3) == [1, 3]
    assert kept(TopP(0.75), 0.1, 0.4, 0.2, 0.3) == [1, 2, 3]
    assert kept(TopP(0.01), 0.1, 0.4, 0.2, 0.3) == [1]
    assert kept(TopP(0.999), 0.5, 0.5) == [0, 1]


def test_min_p_keeps_what_is_not_too_far_below_the_first() -> None:
    assert kept(MinP(0.5), 0.1, 0.4, 0.22, 0.28) == [1, 2, 3]
    assert kept(MinP(0.6), 0.1, 0.4, 0.22, 0.28) == [1, 3]
    assert kept(MinP(1.0), 0.1, 0.4, 0.22, 0.28) == [1]


def test_temperature_raises_probabilities_to_a_power() -> None:
    scores = Temperature(0.5)(logprobs(0.2, 0.8))
    torch.testing.assert_close(scores.softmax(-1), torch.tensor([0.04 / 0.68, 0.64 / 0.68], dtype=torch.float64))


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-3])
def test_a_temperature_next_to_zero_takes_the_most_probable(temperature: float) -> None:
    choice = sampler(SamplingParameters(temperature=temperature)).choose(torch.tensor([0.0, 1.0, 0.5]), 0)
    assert (choice.token_id, choice.prob) == (1, 1.0)


def test_a_candidate_names_the_first_processor_that_cut_it() -> None:
    """0.4 0.3 | top-p 0.8: 0.15 falls after the two hold 0.78 | top-k 4 cuts 0.03 first | min-p would cut both."""
    parameters = SamplingParameters(temperature=1.0, top_k=4, top_p=0.7, min_p=0.2)
    choice = sampler(parameters).choose(logprobs(0.4, 0.32, 0.15, 0.1, 0.03), 0)
    assert [(c.token_id, c.removed_by) for c in choice.candidates] == [
        (0, None),
        (1, None),
        (2, "top-p"),
        (3, "top-p"),
        (4, "top-k"),
    ]
    assert [c.prob for c in choice.candidates] == pytest.approx([0.4 / 0.72, 0.32 / 0.72, 0, 0, 0])
    assert [math.exp(c.logprob) for c in choice.candidates] == pytest.approx([0.4, 0.32, 0.15, 0.1, 0.03])
    narrow = SamplingParameters(temperature=1.0, top_k=4, top_p=0.99, min_p=0.3)
    cut = {c.token_id: c.removed_by for c in sampler(narrow).choose(logprobs(0.4, 0.32, 0.15, 0.1, 0.03), 0).candidates}
    assert cut == {0: None, 1: None, 2: None, 3: "min-p", 4: "top-k"}


def straightforward(scores: Tensor, draw: float) -> list[int]:
    """Ids whose stretch of the cumulative distribution holds the draw, in plain Python; two at a border."""
    values = scores.double().tolist()
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    total = math.fsum(weights)
    order = sorted((index for index, weight in enumerate(weights) if weight), key=lambda index: (-values[index], index))
    ends = [math.fsum(weights[index] for index in order[: count + 1]) / total for count in range(len(order))]
    starts = [0.0, *ends[:-1]]
    near = 1e-12
    return [i for i, start, end in zip(order, starts, ends, strict=True) if start - near <= draw <= end + near]


@settings(max_examples=150)
@given(logits=random_logits(largest=400), draw=st.floats(0, 1, exclude_max=True))
def test_the_token_drawn_is_the_one_whose_stretch_holds_the_number(logits: Tensor, draw: float) -> None:
    assert inverse_cdf(logits, draw) in straightforward(logits, draw)


@given(draw=st.floats(0, 1, exclude_max=True), size=st.sampled_from([3, PREFIX, PREFIX + 1, 2000]))
def test_equally_probable_tokens_are_laid_out_by_id(draw: float, size: int) -> None:
    assert inverse_cdf(torch.zeros(size), draw) in {math.floor(draw * size + shift) for shift in (-1e-9, 1e-9)}


def test_a_stretch_holds_its_start_and_not_its_end() -> None:
    scores = torch.zeros(2, dtype=torch.float64)
    border = float((scores - scores.logsumexp(-1)).exp()[0])
    assert [inverse_cdf(scores, draw) for draw in (0.0, math.nextafter(border, 0), border)] == [0, 0, 1]


def test_ties_across_the_prefix_are_laid_out_by_id() -> None:
    """One token holds half; 599 share the rest, far more than the prefix that is tried first."""
    logits = torch.zeros(600)
    logits[300] = math.log(599)
    assert inverse_cdf(logits, 0.4999) == 300
    others = [index for index in range(600) if index != 300]
    for place in (0, 1, 254, 255, 256, 300, 598):
        assert inverse_cdf(logits, 0.5 + (place + 0.5) / (2 * 599)) == others[place]


def test_the_last_possible_token_owns_what_rounding_leaves() -> None:
    last = math.nextafter(1.0, 0.0)
    assert inverse_cdf(logprobs(0.1, 0.9, 0.0), last) == 0
    assert inverse_cdf(torch.full((1000,), -math.inf).scatter(0, torch.tensor([5, 7]), 0.0), last) == 7


CHAINS = st.builds(
    SamplingParameters,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 5, 300]),
    top_p=st.sampled_from([0.1, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
)


@settings(max_examples=150)
@given(logits=random_logits(), parameters=CHAINS, seed=st.integers(0, 2**64 - 1), top=st.integers(0, 8))
def test_every_number_of_a_choice_can_be_computed_from_the_logits(
    logits: Tensor, parameters: SamplingParameters, seed: int, top: int
) -> None:
    everything = sampler(parameters, seed, top=len(logits)).choose(logits, position=3)
    choice = sampler(parameters, seed, top=top).choose(logits, position=3)
    raw = logits.double().softmax(-1).tolist()
    assert choice.token_id == everything.token_id
    assert isinstance(choice.token_id, int)
    own = raw[choice.token_id]
    assert math.exp(choice.logprob) == pytest.approx(own)
    assert choice.entropy == pytest.approx(-sum(p * math.log2(p) for p in raw if p), abs=1e-9)
    larger = sum(value > logits[choice.token_id] for value in logits.tolist())
    equal_before = sum(value == logits[choice.token_id] for value in logits[: choice.token_id].tolist())
    assert choice.rank == 1 + larger + equal_before
    assert choice.draw == (None if parameters.is_greedy else uniform(seed, 3))
    assert choice.piece == b"<%d>" % choice.token_id
    check_candidates(choice, min(top, len(logits)))
    check_candidates(everything, len(logits))
    assert math.fsum(c.prob for c in everything.candidates) == pytest.approx(1)
    assert choice.prob == {c.token_id: c.prob for c in everything.candidates}[choice.token_id] > 0


def check_candidates(choice: Choice, top: int) -> None:
    """The most probable ones in order, and the chosen one always; cut is what could not be drawn."""
    shown = choice.candidates[:top]
    values = [c.logprob for c in shown]
    assert values == sorted(values, reverse=True)
    assert len({c.token_id for c in choice.candidates}) == len(choice.candidates) <= top + 1
    assert choice.token_id in {c.token_id for c in choice.candidates}
    assert all(c.prob == 0 for c in choice.candidates if c.removed_by)


@given(logits=random_logits())
def test_greedy_takes_the_most_probable_and_the_lowest_id_of_ties(logits: Tensor) -> None:
    choice = sampler(SamplingParameters(temperature=0)).choose(logits, 0)
    values = logits.tolist()
    assert (choice.token_id, choice.rank, choice.prob, choice.draw) == (values.index(max(values)), 1, 1.0, None)
    assert {c.removed_by for c in choice.candidates if c.token_id != choice.token_id} <= {"temperature"}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_refused(bad: float, temperature: float) -> None:
    with pytest.raises(EngineError, match="not numbers"):
        sampler(SamplingParameters(temperature=temperature)).choose(torch.tensor([0.0, bad, 1.0]), 0)


def test_logits_that_leave_nothing_possible_are_refused() -> None:
    with pytest.raises(EngineError, match="not numbers"):
        sampler().choose(torch.full((4,), -math.inf), 0)


def test_the_known_numbers_of_a_small_distribution() -> None:
    choice = sampler(SamplingParameters(temperature=0), top=2).choose(logprobs(0.25, 0.5, 0.125, 0.125), 9)
    assert choice.entropy == pytest.approx(1.75)
    assert choice == Choice(
        position=9,
        token_id=1,
        piece=b"<1>",
        logprob=pytest.approx(math.log(0.5)),
        prob=1.0,
        rank=1,
        entropy=choice.entropy,
        draw=None,
        candidates=(
            Candidate(1, b"<1>", pytest.approx(math.log(0.5)), 1.0, None),
            Candidate(0, b"<0>", pytest.approx(math.log(0.25)), 0.0, "temperature"),
        ),
    )


@pytest.mark.slow
def test_a_hundred_thousand_draws_have_the_distribution_they_are_drawn_from() -> None:
    probabilities = [0.05, 0.3, 0.001, 0.2, 0.2, 0.149, 0.1]
    scores = logprobs(*probabilities)
    counts = [0] * len(probabilities)
    with torch.inference_mode():
        for position in range(100_000):
            counts[inverse_cdf(scores, uniform(7, position))] += 1
    assert not chi_square.is_rejected(counts, probabilities)


def test_choices_have_the_final_distribution() -> None:
    parameters = SamplingParameters(temperature=0.7, top_k=4, top_p=0.95)
    logits = torch.tensor([1.0, 0.2, -0.5, 2.0, 0.0, 1.5])
    final = sampler(parameters, top=6).choose(logits, 0).candidates
    drawn = [sampler(parameters, seed, top=0).choose(logits, 0).token_id for seed in range(1500)]
    possible = [c for c in final if c.prob]
    assert set(drawn) == {c.token_id for c in possible}
    assert not chi_square.is_rejected([drawn.count(c.token_id) for c in possible], [c.prob for c in possible])


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 1.1},
    ],
)
def test_parameters_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=f"^{next(iter(wrong))} is "):
        SamplingParameters(**wrong)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, SamplingParameters(temperature=0.8, top_p=0.95)),
        ({"bos_token_id": 1}, SamplingParameters(temperature=0.8, top_p=0.95)),
        ({"do_sample": False, "temperature": 0.6}, SamplingParameters(temperature=0.0, top_p=1.0)),
        ({"do_sample": True}, SamplingParameters(temperature=1.0, top_p=1.0)),
        ({"temperature": 0.6}, SamplingParameters(temperature=0.6, top_p=1.0)),
        ({"top_k": 20, "min_p": None}, SamplingParameters(temperature=1.0, top_k=20, top_p=1.0)),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "min_p": 0.1}, SamplingParameters(0.6, 0, 0.9, 0.1)),
    ],
)
def test_defaults_are_those_of_the_checkpoint(content: dict[str, Any], expected: SamplingParameters) -> None:
    assert defaults_from(content) == expected


@pytest.mark.parametrize(
    "content",
    [{"temperature": "hot"}, {"top_k": 2.5}, {"top_p": True}, {"top_p": 7}, {"temperature": 10**400}, {"min_p": []}],
)
def test_a_generation_config_that_makes_no_sense_is_refused_by_name(content: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=rf"^generation_config.json: {next(iter(content))} is"):
        defaults_from(content)


def test_fields_that_would_change_the_text_and_are_not_applied_are_told() -> None:
    neutral = {"repetition_penalty": 1.0, "num_beams": 1, "typical_p": None, "temperature": 0.7, "eos_token_id": 2}
    assert not_applied(neutral) == {}
    assert not_applied({**neutral, "repetition_penalty": 1.1, "num_beams": 4}) == {
        "repetition_penalty": 1.1,
        "num_beams": 4,
    }

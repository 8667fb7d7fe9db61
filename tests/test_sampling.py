"""From logits to a choice: what the chain leaves, what cut and moved each candidate, the draw, and all numbers."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import chi_square
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plain_sampling import NothingLeftError, Plain
from torch import Tensor

from tokenglass.model.errors import EngineError, NothingPossible, ParameterError
from tokenglass.model.records.steps import Candidate, Choice
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.draw import uniform
from tokenglass.model.sampling.head import HEAD
from tokenglass.model.sampling.parameters import SAMPLERS, SamplingParameters
from tokenglass.model.sampling.sampler import Sampler, draw_token, inverse_cdf
from tokenglass.model.sampling.scores import Scores

PLAIN = SamplingParameters(temperature=1.0, top_p=1.0)


def logprobs(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def sampler(parameters: SamplingParameters = PLAIN, top: int = 5) -> Sampler:
    return Sampler(parameters, lambda token_id: b"<%d>" % token_id, top)


def at(position: int = 0, seed: int = 1, **more: Any) -> Context:
    """A context of that many tokens, all of them id 0 and part of the prompt."""
    return Context((0,) * position, position, seed, **more)


@st.composite
def random_logits(draw: st.DrawFn, largest: int = 12 * HEAD) -> Tensor:
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


@st.composite
def contexts(draw: st.DrawFn, size: int) -> Context:
    """Texts that repeat themselves, and masks."""
    text = draw(st.lists(st.integers(0, min(size, 6) - 1), max_size=30))
    masks = []
    if draw(st.booleans()):
        masks.append(Mask("ban", removed=tuple(draw(st.lists(st.integers(0, size - 1), max_size=3)))))
    if draw(st.booleans()):
        allowed = np.random.default_rng(draw(st.integers(0, 99))).random(size) < 0.7
        masks.append(Mask("regex", allowed))
    prompt_length = draw(st.integers(0, len(text)))
    return Context(text, prompt_length, draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 3)), tuple(masks))


CHAINS = st.builds(
    SamplingParameters,
    temperature=st.sampled_from([0.0, 0.02, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 0, 1, 5, 300]),
    top_p=st.sampled_from([0.1, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    typical_p=st.sampled_from([0.2, 0.9, 1.0]),
    top_n_sigma=st.sampled_from([0.0, 0.0, 1.0, 3.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, 0.3, -0.4]),
    penalty_window=st.sampled_from([0, 4]),
    no_repeat_ngram_size=st.sampled_from([0, 2, 3]),
    dry_multiplier=st.sampled_from([0.0, 0.8]),
    dry_sequence_breakers=st.sampled_from([(), (1, 4)]),
    xtc_probability=st.sampled_from([0.0, 0.5, 1.0]),
    xtc_threshold=st.sampled_from([0.002, 0.1]),
    logit_bias=st.sampled_from([(), (((0,), 3.0),)]),
    samplers=st.just(SAMPLERS) | st.permutations(SAMPLERS).map(tuple),
)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), logits=random_logits(), parameters=CHAINS)
def test_what_is_fast_is_what_the_definitions_give(
    data: st.DataObject, logits: Tensor, parameters: SamplingParameters
) -> None:
    """Same distribution, same token, same cuts and moves as over the whole vocabulary, in any order of processors."""
    where = data.draw(contexts(len(logits)))
    plain = Plain(logits.double().numpy(), where, parameters)
    try:
        final = plain.run()
    except NothingLeftError as nothing:
        with pytest.raises(NothingPossible, match=f"{nothing} forbids what was still possible"):
            sampler(parameters).choose(logits, where)
        return
    assume(plain.margin > 1e-9)
    distribution = sampler(parameters).distribution(logits, where)
    np.testing.assert_allclose(distribution.final, final, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(distribution.raw, logits.double().log_softmax(-1).numpy(), rtol=1e-12, atol=1e-12)
    choice = sampler(parameters).choose(logits, where)
    assert choice.prob == pytest.approx(final[choice.token_id])
    if choice.draw is not None:
        assert choice.token_id in straightforward(final, choice.draw)
    for candidate in choice.candidates:
        assert candidate.prob == pytest.approx(final[candidate.token_id], abs=1e-12)
        removed_by = None if candidate.prob else plain.removed_by(candidate.token_id)
        if parameters.is_greedy and not candidate.prob:
            removed_by = removed_by or "temperature"
        assert candidate.removed_by == removed_by
        assert dict(candidate.moved) == pytest.approx(plain.moves(candidate.token_id))


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-3])
def test_a_temperature_next_to_zero_takes_the_most_probable(temperature: float) -> None:
    choice = sampler(SamplingParameters(temperature=temperature)).choose(torch.tensor([0.0, 1.0, 0.5]), at())
    assert (choice.token_id, choice.prob) == (1, 1.0)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-9, 1e-3])
@pytest.mark.parametrize("logits", [torch.linspace(0, 40, 5), torch.linspace(0, 4e4, 5000)], ids=len)
def test_a_candidate_that_a_low_temperature_leaves_no_probability_names_it(temperature: float, logits: Tensor) -> None:
    """As at temperature 0; not the truncation behind it, which had nothing left to cut."""
    parameters = SamplingParameters(temperature=temperature, top_p=0.95, top_n_sigma=9.0, min_p=0.1)
    choice = sampler(parameters).choose(logits, at())
    assert (choice.token_id, choice.prob) == (len(logits) - 1, 1.0)
    assert [candidate.removed_by for candidate in choice.candidates] == [None, *["temperature"] * 4]


def test_a_token_that_a_penalty_takes_far_out_and_a_low_temperature_cuts_names_the_temperature() -> None:
    """It was among the first, and lies behind 300 others."""
    logits = torch.zeros(1000)
    logits[:300], logits[7] = 10.0, 11.0
    parameters = SamplingParameters(temperature=0.9, top_p=0.95, presence_penalty=700.0)
    choice = sampler(parameters).choose(logits, Context([7], 0, 1))
    (cut,) = (candidate for candidate in choice.candidates if candidate.token_id == 7)
    assert (cut.removed_by, dict(cut.moved)) == ("temperature", {"presence-penalty": -700.0})


@pytest.mark.parametrize("temperature", [1e300, sys.float_info.max])
def test_a_huge_temperature_makes_all_tokens_alike(temperature: float) -> None:
    final = (
        sampler(SamplingParameters(temperature=temperature, top_p=1.0))
        .distribution(torch.linspace(-40, 40, 600), at())
        .final
    )
    np.testing.assert_allclose(final, 1 / 600)


def test_a_temperature_of_minus_zero_is_zero() -> None:
    choice = sampler(SamplingParameters(temperature=-0.0, top_p=-0.0)).choose(torch.tensor([0.0, 1.0, 0.5]), at())
    assert (choice.token_id, choice.draw) == (1, None)


def test_a_candidate_names_the_first_processor_that_cut_it() -> None:
    """0.4 0.3 | top-p 0.8: 0.15 falls after the two hold 0.78 | top-k 4 cuts 0.03 first | min-p would cut both."""
    parameters = SamplingParameters(temperature=1.0, top_k=4, top_p=0.7, min_p=0.2)
    choice = sampler(parameters).choose(logprobs(0.4, 0.32, 0.15, 0.1, 0.03), at())
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
    cut = {
        c.token_id: c.removed_by for c in sampler(narrow).choose(logprobs(0.4, 0.32, 0.15, 0.1, 0.03), at()).candidates
    }
    assert cut == {0: None, 1: None, 2: None, 3: "min-p", 4: "top-k"}


def drawn_from(logits: Tensor, draw: float) -> int:
    return draw_token(Scores(logits.double().numpy(), at()), draw)


def straightforward(weights: np.ndarray, draw: float) -> list[int]:
    """Ids whose stretch of the cumulative distribution holds the draw, in plain Python; two at a border."""
    total = math.fsum(weights)
    order = sorted(
        (index for index, weight in enumerate(weights) if weight), key=lambda index: (-weights[index], index)
    )
    ends = [end / total for end in itertools.accumulate(weights[index] for index in order)]
    starts = [0.0, *ends[:-1]]
    near = 1e-9
    return [i for i, start, end in zip(order, starts, ends, strict=True) if start - near <= draw <= end + near]


@settings(max_examples=150)
@given(logits=random_logits(largest=400), draw=st.floats(0, 1, exclude_max=True))
def test_the_token_drawn_is_the_one_whose_stretch_holds_the_number(logits: Tensor, draw: float) -> None:
    assert drawn_from(logits, draw) in straightforward(logits.double().softmax(-1).numpy(), draw)


@given(draw=st.floats(0, 1, exclude_max=True), size=st.sampled_from([3, HEAD, HEAD + 1, 6 * HEAD, 5000]))
def test_equally_probable_tokens_are_laid_out_by_id(draw: float, size: int) -> None:
    assert drawn_from(torch.zeros(size), draw) in {math.floor(draw * size + shift) for shift in (-1e-9, 1e-9)}


def test_a_stretch_holds_its_start_and_not_its_end() -> None:
    scores = torch.zeros(2, dtype=torch.float64)
    border = float((scores - scores.logsumexp(-1)).exp()[0])
    assert [drawn_from(scores, draw) for draw in (0.0, math.nextafter(border, 0), border)] == [0, 0, 1]


def test_ties_across_the_head_are_laid_out_by_id() -> None:
    """One token holds half; 2,999 share the rest, far more than the head that is tried first."""
    logits = torch.zeros(3000)
    logits[300] = math.log(2999)
    assert drawn_from(logits, 0.4999) == 300
    others = [index for index in range(3000) if index != 300]
    for place in (0, 1, 126, 127, 128, 300, 2998):
        assert drawn_from(logits, 0.5 + (place + 0.5) / (2 * 2999)) == others[place]


def test_the_last_possible_token_owns_what_rounding_leaves() -> None:
    last = math.nextafter(1.0, 0.0)
    assert drawn_from(logprobs(0.1, 0.9, 0.0), last) == 0
    assert drawn_from(torch.full((1000,), -math.inf).scatter(0, torch.tensor([5, 7]), 0.0), last) == 7


@settings(max_examples=150)
@given(logits=random_logits(), parameters=CHAINS, seed=st.integers(0, 2**64 - 1), top=st.integers(0, 8))
def test_every_number_of_a_choice_can_be_computed_from_the_logits(
    logits: Tensor, parameters: SamplingParameters, seed: int, top: int
) -> None:
    where = at(0, seed)  # no text, so that nothing is a repetition
    everything = sampler(parameters, top=len(logits)).choose(logits, where)
    choice = sampler(parameters, top=top).choose(logits, where)
    raw = logits.double().softmax(-1).tolist()
    assert choice.token_id == everything.token_id
    assert isinstance(choice.token_id, int)
    own = raw[choice.token_id]
    assert math.exp(choice.logprob) == pytest.approx(own)
    assert choice.entropy == pytest.approx(-sum(p * math.log2(p) for p in raw if p), abs=1e-9)
    larger = sum(value > logits[choice.token_id] for value in logits.tolist())
    equal_before = sum(value == logits[choice.token_id] for value in logits[: choice.token_id].tolist())
    assert choice.rank == 1 + larger + equal_before
    assert choice.draw == (None if parameters.is_greedy else uniform(seed, 0))
    assert choice.piece == b"<%d>" % choice.token_id
    check_candidates(choice, min(top, len(logits)))
    check_candidates(everything, len(logits))
    assert math.fsum(c.prob for c in everything.candidates) == pytest.approx(1)
    assert choice.prob == {c.token_id: c.prob for c in everything.candidates}[choice.token_id] > 0


def check_candidates(choice: Choice, top: int) -> None:
    """The most probable ones in order, and the chosen one always; cut is what could not be drawn."""
    first = choice.candidates[:top]
    values = [c.logprob for c in first]
    assert values == sorted(values, reverse=True)
    assert len({c.token_id for c in choice.candidates}) == len(choice.candidates) <= top + 1
    assert choice.token_id in {c.token_id for c in choice.candidates}
    assert all(c.prob == 0 for c in choice.candidates if c.removed_by)


@given(logits=random_logits())
def test_greedy_takes_the_most_probable_and_the_lowest_id_of_ties(logits: Tensor) -> None:
    choice = sampler(SamplingParameters(temperature=0)).choose(logits, at())
    values = logits.tolist()
    assert (choice.token_id, choice.rank, choice.prob, choice.draw) == (values.index(max(values)), 1, 1.0, None)
    assert {c.removed_by for c in choice.candidates if c.token_id != choice.token_id} <= {"temperature"}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_refused(bad: float, temperature: float) -> None:
    with pytest.raises(EngineError, match="not numbers"):
        sampler(SamplingParameters(temperature=temperature)).choose(torch.tensor([0.0, bad, 1.0]), at())


def test_logits_that_leave_nothing_possible_are_refused() -> None:
    with pytest.raises(EngineError, match="not numbers"):
        sampler().choose(torch.full((4,), -math.inf), at())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_nothing_is_left_the_last_to_cut_is_named(temperature: float) -> None:
    one = sampler(SamplingParameters(temperature=temperature, no_repeat_ngram_size=1))
    logits = logprobs(0.5, 0.3, 0.2)
    masks = (Mask("regex", np.array([True, True, False])), Mask("ban", removed=(1,)))
    choice = one.choose(logits, Context([1], 0, 1, masks=masks))
    assert [(c.token_id, c.removed_by) for c in choice.candidates] == [(0, None), (1, "ban"), (2, "regex")]
    with pytest.raises(NothingPossible, match=": no-repeat-ngram forbids what was still possible"):
        one.choose(logits, Context([0], 0, 1, masks=masks))
    with pytest.raises(NothingPossible, match=": ban forbids what was still possible"):  # the model left one token
        one.choose(logprobs(0.0, 1.0, 0.0), Context([], 0, 1, masks=masks[::-1]))


def test_the_known_numbers_of_a_small_distribution() -> None:
    choice = sampler(SamplingParameters(temperature=0), top=2).choose(logprobs(0.25, 0.5, 0.125, 0.125), at(9))
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


DRAWS = 100_000
DISTRIBUTION = (0.05, 0.3, 0.02, 0.2, 0.2, 0.13, 0.1)
PATHS = {
    "no processor": ({}, DISTRIBUTION),
    "temperature": ({"temperature": 0.5}, [p**2 for p in DISTRIBUTION]),
    "top-k": ({"top_k": 2}, (0, 0.3, 0, 0.2, 0.2, 0, 0)),
    "top-p": ({"top_p": 0.65}, (0, 0.3, 0, 0.2, 0.2, 0, 0)),
    "min-p": ({"min_p": 0.3}, (0, 0.3, 0, 0.2, 0.2, 0.13, 0.1)),
    "typical-p": ({"typical_p": 0.5}, (0, 0, 0, 0.2, 0.2, 0.13, 0)),
    "top-n-sigma": ({"top_n_sigma": 1.0}, (0, 0.3, 0, 0.2, 0.2, 0.13, 0)),
    "repetition-penalty": ({"repetition_penalty": 2.0}, (0.05, 0.09, 0.02, 0.2, 0.04, 0.13, 0.1)),
    "presence-penalty": ({"presence_penalty": math.log(2)}, (0.05, 0.15, 0.02, 0.2, 0.1, 0.13, 0.1)),
    "frequency-penalty": ({"frequency_penalty": math.log(2)}, (0.05, 0.075, 0.02, 0.2, 0.1, 0.13, 0.1)),
    "no-repeat-ngram": ({"no_repeat_ngram_size": 2}, (0.05, 0.3, 0.02, 0.2, 0, 0.13, 0.1)),
    "dry": ({"dry_multiplier": math.log(2), "dry_allowed_length": 1}, (0.05, 0.3, 0.02, 0.2, 0.1, 0.13, 0.1)),
    "logit-bias": ({"logit_bias": (((1, 5), -math.log(2)),)}, (0.05, 0.15, 0.02, 0.2, 0.2, 0.065, 0.1)),
}


@pytest.fixture(scope="module")
def numbers() -> np.ndarray:
    return np.array([uniform(7, position) for position in range(DRAWS)])


def is_drawn_as(token_ids: np.ndarray, weights: Any) -> bool:
    """Whether the ids come as often as these weights ask for; never where the weight is 0."""
    wanted = np.array(weights) / sum(weights)
    counts = np.bincount(token_ids, minlength=len(wanted))
    assert not counts[wanted == 0].any()
    return not chi_square.is_rejected(counts[wanted > 0].tolist(), wanted[wanted > 0].tolist())


@pytest.mark.parametrize("path", PATHS)
def test_a_hundred_thousand_draws_have_the_distribution_written_here(path: str, numbers: np.ndarray) -> None:
    """The text 1, 4, 1 ends as it began; what is not named is 1 below the first, and the first above all."""
    setting, weights = PATHS[path]
    parameters = SamplingParameters(**{"temperature": 1.0, "top_p": 1.0, **setting})
    final = sampler(parameters).distribution(logprobs(*DISTRIBUTION), Context([1, 4, 1], 0, 7)).final
    assert is_drawn_as(inverse_cdf(np.arange(len(final)), final, numbers), weights)


def test_a_hundred_thousand_draws_under_a_mask_have_the_distribution_that_it_leaves(numbers: np.ndarray) -> None:
    where = Context((), 0, 7, masks=(Mask("ban", removed=(1,)), Mask("regex", np.array([True] * 6 + [False]))))
    final = sampler().distribution(logprobs(*DISTRIBUTION), where).final
    assert is_drawn_as(inverse_cdf(np.arange(7), final, numbers), (0.05, 0, 0.02, 0.2, 0.2, 0.13, 0))


def test_a_hundred_thousand_draws_with_guidance_have_the_guided_distribution(numbers: np.ndarray) -> None:
    """Doubled guidance away from the uniform distribution squares the probabilities."""
    where = Context((), 0, 7, negative=np.zeros(7))
    final = sampler(SamplingParameters(temperature=1.0, top_p=1.0, guidance_scale=2.0)).distribution(
        logprobs(*DISTRIBUTION), where
    )
    assert is_drawn_as(inverse_cdf(np.arange(7), final.final, numbers), [p**2 for p in DISTRIBUTION])


def test_a_hundred_thousand_draws_with_xtc_are_cut_as_often_as_told(numbers: np.ndarray) -> None:
    """In a quarter of the choices nothing above 0.13 is left but that itself."""
    parameters = SamplingParameters(temperature=1.0, top_p=1.0, xtc_probability=0.25, xtc_threshold=0.12)
    comes = np.array([uniform(7, position, stream=1) < 0.25 for position in range(DRAWS)])
    token_ids = np.zeros(DRAWS, np.int64)
    for cut in (False, True):
        where = at(int(np.flatnonzero(comes == cut)[0]), seed=7)
        final = sampler(parameters).distribution(logprobs(*DISTRIBUTION), where).final
        token_ids[comes == cut] = inverse_cdf(np.arange(7), final, numbers[comes == cut])
    left = np.array([0.05, 0, 0.02, 0, 0, 0.13, 0.1]) / 0.3
    assert is_drawn_as(token_ids, 0.75 * np.array(DISTRIBUTION) + 0.25 * left)


@pytest.mark.slow
def test_a_hundred_thousand_choices_have_the_final_distribution() -> None:
    """The whole of `choose`, over a vocabulary that is far larger than the head; in ten bins of equal probability."""
    parameters = SamplingParameters(temperature=1.3, top_p=1.0)
    logits = torch.randn(900, generator=torch.Generator().manual_seed(3))
    one = sampler(parameters, top=0)
    final = one.distribution(logits, at()).final
    bins = (final[order := np.argsort(-final)].cumsum() - final[order] / 2) * 10
    bin_of = dict(zip(order.tolist(), np.minimum(bins, 9).astype(int).tolist(), strict=True))
    chosen = [one.choose(logits, at(seed=seed)).token_id for seed in range(DRAWS)]
    weights = [sum(final[token_id] for token_id, place in bin_of.items() if place == k) for k in range(10)]
    assert is_drawn_as(np.array([bin_of[token_id] for token_id in chosen]), weights)


def test_choices_have_the_final_distribution() -> None:
    parameters = SamplingParameters(temperature=0.7, top_k=4, top_p=0.95)
    logits = torch.tensor([1.0, 0.2, -0.5, 2.0, 0.0, 1.5])
    final = sampler(parameters, top=6).choose(logits, at()).candidates
    one = sampler(parameters, top=0)
    drawn = [one.choose(logits, at(seed=seed)).token_id for seed in range(1500)]
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
        {"top_p": -0.01},
        {"top_p": 1.01},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"typical_p": -0.01},
        {"top_n_sigma": -1.0},
        {"repetition_penalty": 0.0},
        {"presence_penalty": math.nan},
        {"frequency_penalty": math.inf},
        {"penalty_window": -1},
        {"no_repeat_ngram_size": -1},
        {"dry_multiplier": -0.1},
        {"dry_base": 0.5},
        {"dry_allowed_length": 0},
        {"xtc_probability": 1.5},
        {"xtc_threshold": -0.01},
        {"guidance_scale": math.inf},
        {"logit_bias": (((1,), math.inf),)},
    ],
)
def test_parameters_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=f"^{next(iter(wrong))} is "):
        SamplingParameters(**wrong)

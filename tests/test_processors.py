"""Each logits processor: against that of transformers where it has one, else against numbers written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny import byte_level_tokenizer
from torch import Tensor
from transformers.generation import logits_process

from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.sequence import Sequence as Text
from tokenglass.model.errors import ParameterError
from tokenglass.model.sampling.chain import describe_chain
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.draw import uniform
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.penalties import (
    FrequencyPenalty,
    LogitBias,
    PresencePenalty,
    RepetitionPenalty,
    single_token_forms,
)
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.repeats import DRY, NoRepeatNgram, breakers_of
from tokenglass.model.sampling.rescaling import Guidance, Temperature
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.sampling.scores import Scores
from tokenglass.model.sampling.truncation import XTC, MinP, TopK, TopNSigma, TopP, TypicalP
from tokenglass.model.text.tokenizer import Tokenizer

TEXT = [7, 3, 9, 3, 9, 4, 3, 9]


def context(text: Sequence[int] = TEXT, prompt_length: int = 0, seed: int = 1, **more: Any) -> Context:
    return Context(text, prompt_length, seed, **more)


def random_rows(size: int, spread: float) -> Tensor:
    return torch.randn(4, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64) * spread


def final(scores: Scores) -> Tensor:
    """The distribution (vocab,) that is left."""
    probs = np.exp(scores.whole - scores.peak) / scores.mass
    return torch.from_numpy(probs)


def apply(processor: Processor, logits: Tensor, where: Context) -> Scores:
    scores = Scores(logits.numpy().copy(), where, 5)
    processor(scores)
    return scores


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    assert torch.equal(actual > 0, expected > 0)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def theirs(name: str, *values: Any) -> Any:
    return getattr(logits_process, name)(*values)


@pytest.mark.parametrize("size", [50, 4000])
@pytest.mark.parametrize("spread", [0.5, 3.0, 10.0])
@pytest.mark.parametrize(
    ("ours", "name", "values"),
    [
        *((Temperature(t), "TemperatureLogitsWarper", (t,)) for t in (0.1, 0.8, 1.7)),
        *((TopK(k), "TopKLogitsWarper", (k,)) for k in (1, 7, 40, 300)),
        *((TopP(p), "TopPLogitsWarper", (p,)) for p in (0.01, 0.5, 0.95, 0.9999)),
        *((MinP(p), "MinPLogitsWarper", (p,)) for p in (0.001, 0.1, 0.9)),
        *((TypicalP(p), "TypicalLogitsWarper", (p,)) for p in (0.05, 0.2, 0.9, 0.99)),
        *((RepetitionPenalty(p), "RepetitionPenaltyLogitsProcessor", (p,)) for p in (0.7, 1.3, 5.0)),
        *((NoRepeatNgram(n), "NoRepeatNGramLogitsProcessor", (n,)) for n in (1, 2, 3, 9)),
        (
            LogitBias((((4, 6), 2.5), ((3,), -7.0))),
            "SequenceBiasLogitsProcessor",
            ({(4,): 2.5, (6,): 2.5, (3,): -7.0},),
        ),
    ],
    ids=str,
)
def test_each_processor_gives_what_the_one_of_transformers_gives(
    ours: Processor, name: str, values: tuple[Any, ...], spread: float, size: int
) -> None:
    rows = random_rows(size, spread)
    ids = torch.tensor([TEXT] * len(rows))
    expected = theirs(name, *values)(ids, rows.clone()).softmax(-1)
    for row, wanted in zip(rows, expected, strict=True):
        assert_equal(final(apply(ours, row, context())), wanted)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 3.0, -1.0])
def test_guidance_gives_what_that_of_transformers_gives(scale: float) -> None:
    rows, negative = random_rows(300, 3.0)[:2]

    def model(*_: object, **__: object) -> dict[str, Any]:
        return type("Out", (dict,), {"logits": negative[None, None]})(past_key_values=None)

    peer = theirs("UnbatchedClassifierFreeGuidanceLogitsProcessor", scale, model)
    expected = peer(torch.tensor([TEXT]), rows[None]).softmax(-1)[0]
    scores = apply(Guidance(scale), rows, context(negative=negative.numpy()))
    assert_equal(final(scores), expected)
    change = (scale - 1) * (rows.log_softmax(-1) - negative.log_softmax(-1))
    torch.testing.assert_close(torch.tensor(scores.changes[0].of(np.arange(300))).double(), change)


def test_guidance_leaves_what_either_prompt_makes_impossible() -> None:
    """log p = log(1/2, 1/4, 1/4, 0); log n = log(1/4, 1/2, 0, 1/4); doubled: log p + (log 2, -log 2, 0, -inf)."""
    logits = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64).log()
    negative = torch.tensor([0.25, 0.5, 0.0, 0.25], dtype=torch.float64).log()
    scores = apply(Guidance(2.0), logits, context(negative=negative.numpy()))
    torch.testing.assert_close(final(scores), torch.tensor([8, 1, 2, 0], dtype=torch.float64) / 11)


def test_guidance_without_a_negative_prompt_is_refused() -> None:
    with pytest.raises(ParameterError, match="needs a negative prompt"):
        apply(Guidance(2.0), torch.zeros(3), context())


def test_masks_are_applied_as_transformers_suppresses_tokens() -> None:
    (row, *_) = random_rows(3000, 3.0)
    expected = theirs("SuppressTokensLogitsProcessor", [5, 2999, 17])(None, row[None]).softmax(-1)[0]
    allowed = np.ones(3000, bool)
    allowed[[5, 2999, 17]] = False
    for mask in (Mask("ban", removed=(5, 2999, 17)), Mask("regex", allowed=allowed)):
        scores = Scores(row.numpy().copy(), context(), 5)
        scores.mask(mask)
        assert_equal(final(scores), expected)


@pytest.mark.parametrize("size", [60, 5000])
def test_the_whole_chain_gives_what_that_of_transformers_gives(size: int) -> None:
    parameters = SamplingParameters(
        temperature=0.8,
        top_k=30,
        top_p=0.95,
        min_p=0.02,
        typical_p=0.97,
        repetition_penalty=1.2,
        no_repeat_ngram_size=2,
    )
    peers = logits_process.LogitsProcessorList(
        [
            theirs("RepetitionPenaltyLogitsProcessor", 1.2),
            theirs("NoRepeatNGramLogitsProcessor", 2),
            theirs("TemperatureLogitsWarper", 0.8),
            theirs("TopKLogitsWarper", 30),
            theirs("TopPLogitsWarper", 0.95),
            theirs("MinPLogitsWarper", 0.02),
            theirs("TypicalLogitsWarper", 0.97),
        ]
    )
    rows = random_rows(size, 3.0)
    expected = peers(torch.tensor([TEXT] * 4), rows.clone()).softmax(-1)
    for row, wanted in zip(rows, expected, strict=True):
        distribution = Sampler(parameters, lambda _: b"").distribution(row, context())
        assert_equal(torch.from_numpy(distribution.final), wanted)
        torch.testing.assert_close(torch.from_numpy(distribution.raw), row.log_softmax(-1))


def ids_left(processor: Processor, *probabilities: float, **more: Any) -> list[int]:
    """Ids that a processor leaves of this distribution."""
    return final(of(processor, *probabilities, **more)).nonzero()[:, 0].tolist()


def of(processor: Processor, *probabilities: float, **more: Any) -> Scores:
    return apply(processor, torch.tensor(probabilities, dtype=torch.float64).log(), context(**more))


def score_changes(
    processor: Processor, text: Sequence[int], prompt_length: int = 0, size: int = 10
) -> dict[int, float]:
    """What a processor adds to which of equally probable tokens."""
    scores = apply(processor, torch.zeros(size, dtype=torch.float64), context(text, prompt_length))
    return {token_id: float(score) for token_id, score in enumerate(scores.whole) if score}


def test_top_k_keeps_what_is_as_probable_as_the_last_kept() -> None:
    assert ids_left(TopK(2), 0.1, 0.4, 0.2, 0.3) == [1, 3]
    assert ids_left(TopK(2), 0.25, 0.4, 0.25, 0.1) == [0, 1, 2]
    assert ids_left(TopK(9), 0.5, 0.5) == [0, 1]


def test_top_p_keeps_the_fewest_that_hold_the_mass() -> None:
    assert ids_left(TopP(0.6), 0.1, 0.4, 0.2, 0.3) == [1, 3]
    assert ids_left(TopP(0.75), 0.1, 0.4, 0.2, 0.3) == [1, 2, 3]
    assert ids_left(TopP(0.01), 0.1, 0.4, 0.2, 0.3) == [1]
    assert ids_left(TopP(0.999), 0.5, 0.5) == [0, 1]


def test_min_p_keeps_what_is_not_too_far_below_the_first() -> None:
    assert ids_left(MinP(0.5), 0.1, 0.4, 0.22, 0.28) == [1, 2, 3]
    assert ids_left(MinP(0.6), 0.1, 0.4, 0.22, 0.28) == [1, 3]
    assert ids_left(MinP(1.0), 0.1, 0.4, 0.22, 0.28) == [1]


def test_typical_p_keeps_what_is_about_as_surprising_as_the_average() -> None:
    """Surprise in bits 1, 2, 3, 3; entropy 1.75: distances 0.75, 0.25, 1.25, 1.25."""
    assert ids_left(TypicalP(0.2), 0.5, 0.25, 0.125, 0.125) == [1]
    assert ids_left(TypicalP(0.3), 0.5, 0.25, 0.125, 0.125) == [0, 1]
    assert ids_left(TypicalP(0.8), 0.5, 0.25, 0.125, 0.125) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("n", "left"), [(0.4, [3]), (0.6, [2, 3]), (1.5, [2, 3]), (1.6, [1, 2, 3]), (2.7, [0, 1, 2, 3])]
)
def test_top_n_sigma_keeps_scores_within_n_deviations_of_the_highest(n: float, left: list[int]) -> None:
    """Scores 0, 4, 8 and 10 have mean 5.5 and variance (30.25 + 2.25 + 6.25 + 20.25) / 4 = 14.75, deviation 3.84."""
    logits = torch.tensor([0.0, 4.0, 8.0, 10.0, -math.inf], dtype=torch.float64)
    assert final(apply(TopNSigma(n), logits, context())).nonzero()[:, 0].tolist() == left
    hot = Scores((logits / 3).numpy(), context())
    TopNSigma(n)(hot)
    assert final(hot).nonzero()[:, 0].tolist() == left  # whatever the temperature


def test_top_n_sigma_cuts_a_large_vocabulary_without_sorting_it() -> None:
    (row, *_) = random_rows(40_000, 1.0)
    scores = apply(TopNSigma(3.0), row, context())
    expected = row >= row.max() - 3 * row.std(correction=0)
    assert torch.equal(final(scores) > 0, expected)
    assert not scores.is_complete
    assert scores.changes[0].of(np.array([int(row.argmax()), int(row.argmin())])) == [0, -math.inf]


def test_xtc_cuts_all_but_the_last_of_the_tokens_that_reach_the_threshold() -> None:
    assert ids_left(XTC(1.0, 0.1), 0.4, 0.3, 0.05, 0.15, 0.1) == [2, 4]
    assert ids_left(XTC(1.0, 0.29), 0.4, 0.3, 0.05, 0.15, 0.1) == [1, 2, 3, 4]
    assert ids_left(XTC(1.0, 0.35), 0.4, 0.3, 0.05, 0.15, 0.1) == [0, 1, 2, 3, 4]
    assert ids_left(XTC(0.0, 0.1), 0.4, 0.3, 0.05, 0.15, 0.1) == [0, 1, 2, 3, 4]
    large = torch.zeros(5000, dtype=torch.float64)
    large[[70, 4000]] = torch.tensor([11.0, 10.0], dtype=torch.float64)
    scores = apply(XTC(1.0, 0.1), large, context())
    assert (scores.peak, int(scores.token_ids[0]), float(scores.whole[70])) == (10.0, 4000, -math.inf)


@pytest.mark.parametrize("named", [(), (3,), (0,), (1, 9)])
def test_xtc_does_nothing_where_it_would_cut_a_newline_or_an_end_token(named: tuple[int, ...]) -> None:
    """As its author has it. The tokens 0, 1 and 3 reach the threshold; 3, the least probable of them, stays anyway."""
    left = [0, 1, 2, 3, 4] if {0, 1} & set(named) else [2, 3, 4]
    assert ids_left(XTC(1.0, 0.12), 0.4, 0.3, 0.05, 0.15, 0.1, spared=frozenset(named)) == left


def test_xtc_spares_the_end_tokens_of_the_run_and_the_newline_of_the_tokenizer() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer())
    newline = tokenizer.backend.token_to_id("Ċ")
    request = Request((5,), 1, SamplingParameters(xtc_probability=1.0), eos_token_ids=frozenset({0, 9}))
    text = Text(tokenizer, request, 64)
    for token_id in (0, 9, newline, 40):
        logits = torch.full((tokenizer.vocab_size,), -9.0)
        logits[[token_id, 41]] = torch.tensor([3.0, 2.9])
        first = text.choose(logits).candidates[0]
        assert (first.token_id, first.removed_by) == (token_id, "xtc" if token_id == 40 else None)


def test_xtc_comes_as_often_as_told_by_numbers_of_its_own() -> None:
    cuts = [len(ids_left(XTC(0.3, 0.1), 0.6, 0.4, seed=seed)) == 1 for seed in range(400)]
    assert cuts == [uniform(seed, len(TEXT), stream=1) < 0.3 for seed in range(400)]
    again = [len(ids_left(XTC(0.3, 0.1), 0.6, 0.4, seed=seed, attempt=1)) == 1 for seed in range(400)]
    assert again != cuts


def test_temperature_raises_probabilities_to_a_power() -> None:
    scores = of(Temperature(0.5), 0.2, 0.8)
    torch.testing.assert_close(final(scores), torch.tensor([0.04 / 0.68, 0.64 / 0.68], dtype=torch.float64))


def test_repetition_divides_what_is_positive_and_multiplies_what_is_negative() -> None:
    logits = torch.tensor([2.0, -2.0, 0.0, 2.0, -2.0], dtype=torch.float64)
    assert apply(RepetitionPenalty(2.0), logits, context([0, 1, 2, 0])).whole.tolist() == [
        1.0,
        -4.0,
        0.0,
        2.0,
        -2.0,
    ]
    assert apply(RepetitionPenalty(2.0, window=2), logits, context([0, 1, 4, 4])).whole.tolist() == [
        2,
        -2,
        0,
        2,
        -4,
    ]


def test_presence_counts_a_new_token_once_and_frequency_each_time() -> None:
    text = [1, 2, 3, 2, 3, 3]
    assert score_changes(PresencePenalty(0.5), text) == {1: -0.5, 2: -0.5, 3: -0.5}
    assert score_changes(FrequencyPenalty(0.5), text) == {1: -0.5, 2: -1.0, 3: -1.5}
    assert score_changes(PresencePenalty(0.5), text, prompt_length=4) == {3: -0.5}
    assert score_changes(FrequencyPenalty(-0.5), text, prompt_length=2) == {2: 0.5, 3: 1.5}
    assert score_changes(FrequencyPenalty(0.5, window=2), text) == {3: -1.0}
    assert score_changes(FrequencyPenalty(0.5, window=2), text, prompt_length=5) == {3: -0.5}
    assert score_changes(PresencePenalty(0.5), text, prompt_length=6) == {}
    assert score_changes(FrequencyPenalty(0.5), [1, 99], size=3) == {1: -0.5}  # an id without a logit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([1, 2, 3, 4, 1, 2, 3], {4: -4.0}),  # 3 tokens repeat, 1 more than allowed: 2 * 2 ** 1
        ([1, 2, 3, 4, 9, 2, 3], {4: -2.0}),  # 2 tokens: 2 * 2 ** 0
        ([1, 2, 3, 4, 9, 9, 3], {}),  # 1 token is allowed
        ([2, 3, 4, 1, 2, 3, 5, 1, 2, 3], {4: -2.0, 5: -4.0}),  # each continuation by its own length
        ([5, 5, 5, 5], {5: -4.0}),  # 3 of the text's end came before its last token
        ([1, 2, 3, 4, 8, 1, 2, 3], {4: -4.0}),
        ([1, 8, 3, 4, 1, 8, 3], {}),  # the breaker 8 ends the sequence
        ([1, 2, 3, 8, 1, 2, 3], {}),  # and is never penalised
        ([1, 2, 8, 4, 1, 2, 8], {}),
        ([], {}),
        ([1], {}),
    ],
)
def test_dry_subtracts_by_the_length_of_the_sequence_that_would_go_on(
    text: list[int], expected: dict[int, float]
) -> None:
    assert score_changes(DRY(2.0, 2.0, 2, (8,)), text) == expected


def test_dry_looks_at_its_window_alone_and_follows_a_sequence_at_most_50_back() -> None:
    assert score_changes(DRY(2.0, 2.0, 2, window=5), [1, 2, 3, 4, 1, 2, 3]) == {}
    assert score_changes(DRY(2.0, 2.0, 2, window=6), [1, 2, 3, 4, 1, 2, 3]) == {4: -2.0}
    assert score_changes(DRY(1.0, 2.0, 50), [5] * 300) == {5: -1.0}


def test_a_token_never_completes_an_n_gram_twice() -> None:
    assert score_changes(NoRepeatNgram(3), [1, 2, 3, 1, 2, 4, 1, 2]) == {3: -math.inf, 4: -math.inf}
    assert score_changes(NoRepeatNgram(5), [1, 2, 3]) == {}
    assert score_changes(NoRepeatNgram(2), []) == {}


def test_a_bias_is_added_and_sums_up_where_a_token_is_named_twice() -> None:
    assert score_changes(LogitBias((((1, 2), 1.5), ((2,), -3.0))), TEXT) == {1: 1.5, 2: -1.5}
    with pytest.raises(ParameterError, match="names token 10; the vocabulary ends at 9"):
        score_changes(LogitBias((((10,), 1.0),)), TEXT)


def test_a_text_is_biased_in_its_forms_of_one_token() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer())
    assert {tokenizer.piece(token_id) for token_id in single_token_forms(" fox", tokenizer)} == {b" fox"}
    assert {tokenizer.piece(token_id) for token_id in single_token_forms("a", tokenizer)} == {b"a", b" a"}
    with pytest.raises(ParameterError, match=r"'fox lived' is \d+ tokens"):
        single_token_forms("fox lived", tokenizer)


def test_sequence_breakers_are_the_tokens_that_hold_one() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer())
    breakers = breakers_of(("e", ";"), tokenizer)
    pieces = [tokenizer.piece(token_id) for token_id in range(tokenizer.vocab_size)]
    assert [pieces[token_id] for token_id in breakers] == [piece for piece in pieces if b"e" in piece or b";" in piece]


def test_the_chain_is_told_with_its_values_in_its_order() -> None:
    parameters = SamplingParameters(
        temperature=0.7,
        top_k=40,
        top_p=0.9,
        repetition_penalty=1.1,
        penalty_window=64,
        logit_bias=(((5, 6), -2.0),),
        xtc_probability=0.5,
    )
    assert describe_chain(parameters) == (
        ("logit-bias", "-2.0 on 5 6"),
        ("repetition-penalty", "1.1, window 64"),
        ("temperature", "0.7"),
        ("top-k", "40"),
        ("top-p", "0.9"),
        ("xtc", "0.5, threshold 0.1"),
    )


def test_what_is_on_and_not_in_the_order_is_off_and_said_so() -> None:
    parameters = SamplingParameters(
        temperature=0.7, top_k=40, top_p=0.9, guidance_scale=1.5, samplers=("top-p", "temperature")
    )
    assert describe_chain(parameters) == (
        ("guidance", "1.5"),
        ("top-p", "0.9"),
        ("temperature", "0.7"),
        ("top-k", "40 (off: not in samplers)"),
    )


def test_greedy_decoding_is_told_as_such() -> None:
    assert describe_chain(SamplingParameters(temperature=0, top_k=40, top_p=1.0, presence_penalty=1.0)) == (
        ("presence-penalty", "1.0, window 0"),
        ("temperature", "0 (greedy: the most probable token)"),
        ("top-k", "40 (off: greedy)"),
    )


@pytest.mark.parametrize(("names", "wrong"), [(("top-k", "top-q"), "top-q"), (("xtc", "top-k", "xtc"), "xtc")])
def test_an_order_with_unknown_or_doubled_names_is_refused(names: tuple[str, ...], wrong: str) -> None:
    with pytest.raises(ParameterError, match=f"^samplers: '{wrong}' is .* of logit-bias, repetition-penalty, .*, xtc$"):
        SamplingParameters(samplers=names)

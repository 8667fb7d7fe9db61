"""The metrics of a comparison, on texts whose numbers can be counted by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_parts import as_tensor

from tokenglass.model.loading import load_model
from tokenglass.model.measuring.comparison.bootstrap import Estimate, estimate
from tokenglass.model.measuring.comparison.divergence import to_edge, top_two
from tokenglass.model.measuring.comparison.passages import read_passages
from tokenglass.model.measuring.comparison.references import references
from tokenglass.model.measuring.comparison.scorer import Scorer
from tokenglass.model.measuring.comparison.speech import closes_speech
from tokenglass.model.measuring.comparison.texts import (
    Share,
    agreement,
    distinct,
    repetition,
    shared_length,
    unigram_entropy,
    words,
)
from tokenglass.model.text.tokenizer import Tokenizer


def test_words_are_lower_case_and_without_the_marks_between_them() -> None:
    assert words("The cat's hat -- the CAT, um 3 Füße!") == ["the", "cat's", "hat", "the", "cat", "um", "3", "füße"]


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [("a b a b", 1, Share(2, 4)), ("a b a b", 2, Share(2, 3)), ("A a", 1, Share(1, 2)), ("a", 2, Share(0, 0))],
)
def test_distinct_ngrams_are_counted_once(text: str, size: int, expected: Share) -> None:
    assert distinct(text, size) == expected


def test_a_repeated_4gram_was_said_before() -> None:
    assert repetition("a b c d a b c d a") == Share(2, 6)  # abcd bcda cdab dabc, then abcd and bcda again
    assert repetition("a a a a a a") == Share(2, 3)
    assert repetition("one two three") == Share(0, 0)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("a", 0.0), ("a a b b", 1.0), ("a b c d", 2.0), ("a a b c", 1.5), ("b a a a", 0.8112781244591328)],
)
def test_unigram_entropy_is_that_of_the_words_of_the_text(text: str, bits: float) -> None:
    assert unigram_entropy(text).part == pytest.approx(bits)
    assert unigram_entropy(text).whole == 1


def test_a_text_without_words_counts_for_nothing() -> None:
    assert unigram_entropy(" ... ") == distinct(" ... ", 1) == Share(0, 0)


def test_agreement_is_place_by_place_and_missing_places_are_not_the_same() -> None:
    assert agreement([1, 2, 9, 4], [1, 2, 3, 4]) == Share(3, 4)
    assert agreement([1], [1, 2, 3, 4]) == Share(1, 4)
    assert shared_length([1, 2, 9, 4], [1, 2, 3, 4]) == 2
    assert shared_length([], [1]) == 0


# The task


@pytest.mark.parametrize(
    "continuation",
    [
        '?" he asked.',
        '," she said. "Come here."\nThen she left',
        '!"\n"And you',
        '," he said, "and',  # cut off in the second speech
        '," he said. "',
        '".',
        '" "',  # the same, of which there is only the mark
    ],
)
def test_a_speech_is_closed(continuation: str) -> None:
    assert closes_speech(continuation)


@pytest.mark.parametrize(
    "continuation",
    [
        "",
        " he asked and went on and on",  # never closed
        ' he asked.\n"Who',
        ' "who" he asked',  # opened again before it was closed
        ' word"word',
        '," she said. " come',  # opens before a space
        '," she said. "Come here.\nThen she left',
        '," she said. "\nThen',
    ],
)
def test_a_speech_is_not_closed(continuation: str) -> None:
    assert not closes_speech(continuation)


@pytest.mark.parametrize("passage", read_passages("speech"), ids=lambda passage: passage.prompt[-12:])
def test_every_prompt_of_the_task_is_inside_a_speech_that_its_continuation_closes(passage) -> None:
    assert passage.prompt.count('"') % 2 == 1
    assert closes_speech(passage.continuation)


def test_the_stories_are_divided_by_what_their_continuations_begin_with() -> None:
    for name in ("stories", "repetition"):
        for passage in read_passages(name):
            assert not passage.prompt[-1].isspace() or passage.prompt.endswith("\n")
            assert passage.continuation[0].isspace() or passage.prompt.endswith("\n")


# References


def test_references_are_the_true_text_its_words_and_its_tokens(tokenizer: Tokenizer) -> None:
    stories = read_passages("stories")
    human, shuffled, unigram = references(tokenizer, stories, 40).values()
    for passage in stories:
        assert passage.continuation.startswith(human(passage, 1))
        assert len(tokenizer.encode_bare(human(passage, 1))) == 40
        assert sorted(shuffled(passage, 1).split()) == sorted(human(passage, 1).split())
        assert shuffled(passage, 1) == shuffled(passage, 1) != shuffled(passage, 2)
        assert unigram(passage, 1) == unigram(passage, 1) != unigram(passage, 2)
    known = {token for passage in stories for token in tokenizer.encode_bare(passage.prompt + passage.continuation)}
    assert set(tokenizer.encode_bare(unigram(stories[0], 1))) & known


# Intervals

SHARES = st.builds(Share, st.floats(0, 10), st.floats(0.1, 10))


@given(prompts=st.lists(st.lists(SHARES, min_size=1, max_size=3), min_size=2, max_size=5))
def test_an_interval_holds_what_resamples_can_give_and_is_the_same_every_time(prompts: list[list[Share]]) -> None:
    interval = estimate(prompts, 200)
    assert interval == estimate(prompts, 200)
    assert interval is not None
    assert interval.low is not None
    assert interval.high is not None
    ratios = [sum(share.part for share in group) / sum(share.whole for share in group) for group in prompts]
    assert min(ratios) - 1e-9 <= interval.low <= interval.high <= max(ratios) + 1e-9
    assert min(ratios) - 1e-9 <= interval.value <= max(ratios) + 1e-9


def test_a_ratio_is_one_of_sums() -> None:
    assert estimate([[Share(1, 1)], [Share(1, 9)]]) == Estimate(0.2, pytest.approx(1 / 9), pytest.approx(1))


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide_on_each_side() -> None:
    interval = estimate([[Share(number % 2, 1)] for number in range(100)])
    assert interval is not None
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)


def test_texts_of_one_prompt_are_drawn_together() -> None:
    together = estimate([[Share(0, 1)] * 50, [Share(1, 1)] * 50])
    assert together == Estimate(0.5, 0.0, 1.0)


def test_nothing_has_no_ratio_and_one_prompt_no_interval() -> None:
    assert estimate([[Share(0, 0)], [Share(0, 0)]]) is None
    assert estimate([[Share(1, 2), Share(2, 4)]]) == Estimate(0.5, None, None)


# Margins


def test_the_distance_to_the_edge_is_within_the_tokens_stretch() -> None:
    probs = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64).numpy()  # stretches: 1 to 0.6, 2 to 0.9, 0 to 1
    assert to_edge(probs, 2, 0.7) == pytest.approx(0.1)
    assert to_edge(probs, 2, 0.85) == pytest.approx(0.05)
    assert to_edge(probs, 1, 0.1) == pytest.approx(0.5)  # 0 is no edge: no draw is below
    assert to_edge(probs, 0, 0.95) == pytest.approx(0.05)
    assert to_edge(probs, 1, 0.7) == pytest.approx(-0.1)


def test_the_margin_of_the_top_two_is_in_nats() -> None:
    assert top_two(torch.tensor([0.1, 0.6, 0.3]).double().numpy()) == pytest.approx(math.log(2))
    assert top_two(torch.tensor([0.5, 0.0, 0.5]).double().numpy()) == 0
    assert top_two(torch.tensor([0.0, 1.0]).double().numpy()) == math.inf


# The scorer


def test_bits_are_those_of_the_continuation_under_transformers(saved_checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    loaded = load_model(saved_checkpoint)
    prompt, continuation = "The fox and the bear", " said that it was cold"
    ids = torch.tensor([loaded.tokenizer.encode(prompt + continuation)])
    known = len(loaded.tokenizer.encode(prompt))
    assert tuple(ids[0, :known].tolist()) == loaded.tokenizer.encode(prompt)
    labels = ids.clone()
    labels[0, :known] = -100
    oracle = AutoModelForCausalLM.from_pretrained(saved_checkpoint, dtype=torch.float32)
    with torch.inference_mode():
        mean = oracle(ids, labels=labels).loss.item()
    score = Scorer(loaded).bits(prompt, continuation)
    assert score.whole == len(continuation)
    assert score.part == pytest.approx(mean * (ids.shape[1] - known) / math.log(2), rel=1e-5)


def test_bytes_are_those_of_utf8_and_nothing_takes_no_bits(saved_checkpoint: Path) -> None:
    scorer = Scorer(load_model(saved_checkpoint))
    assert scorer.bits("The fox", " Füße").whole == 7
    assert scorer.bits("The fox", "") == Share(0, 0)


def test_a_text_beyond_the_scorers_context_loses_its_beginning(saved_checkpoint: Path) -> None:
    loaded = load_model(saved_checkpoint)
    score = Scorer(loaded).bits("The fox said. " * 100, "The bear")
    assert score.part > 0
    ids = loaded.tokenizer.encode("The fox said. " * 100 + "The bear")
    count = len(ids) - shared_length(ids, loaded.tokenizer.encode("The fox said. " * 100))
    logprobs = as_tensor(loaded.engine.forward(torch.tensor([ids[-loaded.engine.limit :]]), None, last=None))[
        0
    ].log_softmax(-1)
    nats = -sum(logprobs[-1 - place, ids[-place]].item() for place in range(1, count + 1))
    assert score.part == pytest.approx(nats / math.log(2), rel=1e-4)

"""Texts that say a passage several times, and the steps that begin with them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenglass.weights.recipe.corpus import REPEATS, SOURCES
from tokenglass.weights.recipe.repeats import TIMES, WORDS, repeated_texts
from tokenglass.weights.recipe.schedule import Recipe
from tokenglass.weights.recipe.train import batch

DOCUMENTS = st.lists(
    st.lists(st.text("abcxyz.,!", min_size=1), min_size=1, max_size=200).map(" ".join), min_size=1, max_size=20
)


def passage_of(text: str) -> tuple[list[str], int]:
    """The passage that a text repeats, and how often: the shortest that gives the whole text."""
    words = text.split()
    for size in range(1, len(words) + 1):
        times, rest = divmod(len(words), size)
        if not rest and words[:size] * times == words:
            return words[:size], times
    raise AssertionError(text)


@given(DOCUMENTS, st.integers(0, 9))
def test_every_document_gives_a_text_that_is_one_passage_of_its_words_several_times(
    documents: list[str], seed: int
) -> None:
    texts = list(repeated_texts(documents, seed))
    assert len(texts) == len(documents)
    assert texts == list(repeated_texts(documents, seed))
    for document, text in zip(documents, texts, strict=True):
        passage, times = passage_of(text)
        assert times >= TIMES[0]
        assert not Counter(passage) - Counter(document.split())


def test_passages_are_of_many_lengths_as_they_stand_or_in_another_order() -> None:
    document = " ".join(f"word{number}" for number in range(100))
    passages = [passage_of(text) for text in repeated_texts([document] * 1000)]
    assert {len(passage) for passage, _ in passages} == {*range(WORDS[0], WORDS[1] + 1)}
    assert {times for _, times in passages} == {*range(TIMES[0], TIMES[1] + 1)}
    assert 400 < sum(" ".join(passage) in document for passage, _ in passages) < 600


def test_a_run_can_begin_with_repeats_in_two_rows_of_three_and_next_tokens_alone() -> None:
    recipe = Recipe(tokens=100 * 4096, copying_steps=30)
    marks = {source.name: torch.full((3000,), source == REPEATS) for source in SOURCES}
    shares = [batch(marks, recipe, step, 256)[:, 0].float().mean().item() for step in range(60)]
    usual = REPEATS.rows / 32
    assert sum(shares[:30]) / 30 == pytest.approx(2 / 3 + usual / 3, rel=0.05)
    assert sum(shares[30:]) / 30 == pytest.approx(usual, rel=0.1)
    assert [recipe.is_joint(step) for step in range(28, 34)] == [False, False, True, False, True, False]

"""The texts of simple structure: fixed by how they begin, and held out by the line that they repeat."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from tokenglass.weights.recipe.corpus import PATTERNS, held_out_documents, training_documents
from tokenglass.weights.recipe.pattern_words import NUMBERS
from tokenglass.weights.recipe.patterns import KINDS, SLOTS, capital, draw_line, lines_of, pattern_texts, write_text


def test_texts_are_the_same_every_time_and_every_kind_is_as_frequent() -> None:
    texts = pattern_texts(70, held_out=False)
    assert texts == pattern_texts(70, held_out=False)
    assert texts != pattern_texts(70, held_out=False, seed=1)
    assert Counter(text.startswith("Count to") for text in texts)[True] == 10


@pytest.mark.parametrize("kind", KINDS)
def test_no_line_is_both_trained_on_and_held_out(kind: str) -> None:
    trained, held_out = lines_of(kind, held_out=False), lines_of(kind, held_out=True)
    assert held_out
    assert len(trained) >= 5
    assert not {*trained} & {*held_out}


@pytest.mark.parametrize("kind", KINDS)
def test_every_pattern_is_filled_in_whole_and_has_one_line_of_each_step(kind: str) -> None:
    for seed, line in enumerate(lines_of(kind, held_out=False) + lines_of(kind, held_out=True)):
        text = write_text(kind, line, random.Random(seed))
        assert not {*"{}"} & {*text}
        assert all(not row[0].islower() for row in text.split("\n"))
        assert 5 <= len(text.split("\n")) <= 25


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_the_texts_to_train_on_have_words_at_random_around_what_their_kind_says(kind: str) -> None:
    draw = random.Random(1)
    lines = [draw_line(kind, draw) for _ in range(100)]
    assert len(set(lines)) == len(lines)
    for line in lines:
        for slot in SLOTS[kind]:
            assert re.search(re.escape(slot).replace(re.escape("{noun}"), r"\w+"), line)
        assert len(write_text(kind, line, draw).split("\n")) >= 5
    written = re.compile("|".join(map(expression_of, lines_of(kind, held_out=False))))
    assert not any(map(written.fullmatch, lines))
    trained = pattern_texts(1400, held_out=False)[[*KINDS].index(kind) :: 7]
    assert 70 <= sum(bool(written.fullmatch(text.split("\n")[1])) for text in trained) <= 130


def expression_of(pattern: str) -> str:
    """Of lines that may come of a pattern."""
    return ".*".join(map(re.escape, re.split(r"{\w+}", capital(pattern))))


def test_lines_that_are_trained_on_differ_in_every_text_so_that_none_can_be_known_by_heart() -> None:
    """The text behind the last word that is filled in by step: what a model has to copy from the line before."""
    texts = pattern_texts(700, held_out=False)
    lines = Counter(text.split("\n")[1] for text in texts)
    ends = Counter(" ".join(line.split()[-4:]) for line in lines)
    assert len(lines) > 0.95 * len(texts)
    assert len(ends) > 0.7 * len(texts)


def test_articles_and_plurals_of_what_is_filled_in_are_right() -> None:
    text = "\n".join(pattern_texts(700, held_out=False) + pattern_texts(700, held_out=True))
    assert not re.search(r"\ba [aeio]\w+|\ban [^aeiou\W]", text)
    assert not re.search(r"\b(?:fishs|leafs|\w+(?:s|x|ch|sh)s)\b", text)


def test_counting_says_where_it_ends_and_ends_there() -> None:
    for text in pattern_texts(70, held_out=True)[::7]:
        heading, *lines, end = text.split("\n")
        last = heading.removeprefix("Count to ").rstrip(".")
        words = [next(word for word in line.lower().split() if word in NUMBERS) for line in lines]
        assert words == [*NUMBERS[: NUMBERS.index(last) + 1]]
        assert end == "That is all."


def test_the_corpus_has_them_beside_its_files(tmp_path: Path) -> None:
    assert [*itertools.islice(training_documents(tmp_path, PATTERNS), 7)] == pattern_texts(7, held_out=False)
    assert [*itertools.islice(held_out_documents(tmp_path, PATTERNS), 7)] == pattern_texts(7, held_out=True)

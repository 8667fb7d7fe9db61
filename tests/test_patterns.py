"""The texts of simple structure: fixed by how they begin, and held out by the line that they repeat."""

from __future__ import annotations

import lzma
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from tokenglass.weights.recipe.corpus import END_OF_TEXT, PATTERNS, TINY, held_out_documents, training_documents
from tokenglass.weights.recipe.pattern_words import NUMBERS
from tokenglass.weights.recipe.patterns import (
    KINDS,
    SLOTS,
    capital,
    draw_line,
    held_out_pattern_texts,
    lines_of,
    pattern_texts,
    write_text,
)

STORIES = [" ".join(f"w{story}x{place}" for place in range(30)) for story in range(40)]  # words that no list has


def test_texts_are_the_same_every_time_and_every_kind_is_as_frequent() -> None:
    for texts, again in (
        (list(pattern_texts(STORIES, 70)), list(pattern_texts(STORIES, 70))),
        (held_out_pattern_texts(70), held_out_pattern_texts(70)),
    ):
        assert texts == again
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
def test_a_line_has_what_its_kind_says_between_words_as_they_come(kind: str) -> None:
    draw = random.Random(1)
    story = STORIES[0].split()
    for line in (draw_line(kind, story, draw) for _ in range(100)):
        for slot in SLOTS[kind]:
            assert re.search(re.escape(slot).replace(re.escape("{noun}"), r"\w+"), line)
        places = [int(place) for place in re.findall(r"w0x(\d+)", line)]
        assert places == [*range(places[0], places[0] + len(places))]
        assert len(write_text(kind, line, draw).split("\n")) >= 5


def test_braces_in_a_story_are_no_slots() -> None:
    line = draw_line("list", ["{name}", "a{", "}"], random.Random(1))
    assert "{name}" not in line
    assert write_text("list", line, random.Random(1))


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_the_texts_to_train_on_have_words_of_stories_and_a_quarter_is_written_by_hand(kind: str) -> None:
    written = re.compile("|".join(map(expression_of, lines_of(kind, held_out=False))))
    lines = [text.split("\n")[1] for text in pattern_texts(STORIES, 1400)][[*KINDS].index(kind) :: 7]
    of_stories = [bool(re.search(r"w\d+x\d+", line, re.IGNORECASE)) for line in lines]
    by_hand = [bool(written.fullmatch(line)) for line in lines]
    assert 80 <= sum(of_stories) <= 120
    assert 30 <= sum(by_hand) <= 70


def expression_of(pattern: str) -> str:
    """Of lines that may come of a pattern."""
    return ".*".join(map(re.escape, re.split(r"{\w+}", capital(pattern))))


def test_lines_that_are_trained_on_differ_in_every_text_so_that_none_can_be_known_by_heart() -> None:
    """The text behind the last word that is filled in by step: what a model has to copy from the line before."""
    texts = list(pattern_texts(STORIES, 700))
    lines = Counter(text.split("\n")[1] for text in texts)
    ends = Counter(" ".join(line.split()[-4:]) for line in lines)
    assert len(lines) > 0.95 * len(texts)
    assert len(ends) > 0.7 * len(texts)


def test_articles_and_plurals_of_what_is_filled_in_are_right() -> None:
    text = "\n".join([*pattern_texts(["fun"], 700), *held_out_pattern_texts(700)])
    assert not re.search(r"\ba [aeio]\w+|\ban [^aeiou\W]", text)
    assert not re.search(r"\b(?:fishs|leafs|\w+(?:s|x|ch|sh)s)\b", text)


def test_counting_says_where_it_ends_and_ends_there() -> None:
    for text in held_out_pattern_texts(70)[::7]:
        heading, *lines, end = text.split("\n")
        last = heading.removeprefix("Count to ").rstrip(".")
        words = [next(word for word in line.lower().split() if word in NUMBERS) for line in lines]
        assert words == [*NUMBERS[: NUMBERS.index(last) + 1]]
        assert end == "That is all."


def test_the_corpus_has_them_beside_its_files(tmp_path: Path) -> None:
    for source in TINY:
        with lzma.open(tmp_path / f"{source.name}.txt.xz", "wt", encoding="utf-8") as file:
            file.writelines(f"{story}\n{END_OF_TEXT}\n" for story in STORIES)
    trained = [*training_documents(tmp_path, PATTERNS)]
    assert any("w0x" in text for text in trained)
    held_out = [*held_out_documents(tmp_path, PATTERNS)]
    assert held_out == held_out_pattern_texts(len(held_out))
    assert not {*trained} & {*held_out}

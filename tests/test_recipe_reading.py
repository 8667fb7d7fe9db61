"""The checks of the reading test (weights/recipe/reading.py) see what they are made to see, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.comparison.scorer import Scorer
from tokenglass.weights.recipe.reading import (
    changes_pronoun,
    is_unfinished,
    meets_itself,
    openings,
    reading_table,
    write_stories,
)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("There was a girl named Lily. She sang. Then Lily ran to her house.", False),
        ("There was a girl named Lily. She sang. Then Lily ran to his house.", True),
        ("One day Tim saw a bird. He was glad. Tim lost her hat.", True),
        ("One day Tim saw a bird. He was glad, and then Tim met her.", False),
        ("One day Tim met Sue. She was glad. Then Tim went home. He slept.", False),
        ('One day Tim ran. "She is here," he said. Then Tim and his dog slept.', False),
        ("It was raining. He was sad. She was glad.", False),
    ],
)
def test_a_name_changes_its_pronoun(text: str, changes: bool) -> None:
    assert changes_pronoun(text) == changes


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [("The end.", False), ('"Good night!" ', False), ("And then the", True), ("He said, ", True), ("", True)],
)
def test_the_last_sentence_does_not_end(text: str, unfinished: bool) -> None:
    assert is_unfinished(text) == unfinished


@pytest.mark.parametrize(
    ("text", "meets"),
    [
        ("The fox saw the fox.", True),
        ("One day the fox had to help the old fox, so he ran.", True),
        ("She saw a big tree with a big tree.", True),
        ("The fox saw the hen. The fox ran.", False),
        ("The big dog saw the big cat.", False),
        ("The fox saw that it was a hen.", False),
        ("The fox ran and the fox hid.", False),
    ],
)
def test_a_noun_meets_itself(text: str, meets: bool) -> None:
    assert meets_itself(text) == meets


def test_no_opening_fails_a_check_by_itself() -> None:
    assert len(set(openings())) == 100
    assert not any(check(text) for text in openings() for check in (changes_pronoun, is_unfinished, meets_itself))


def test_the_table_has_a_row_for_each_writer_and_the_same_one_for_the_same_writer() -> None:
    tale = load_model(bundled_folder(), device="cpu")
    *heading, first, second = reading_table([("one", tale), ("two", tale)], tale, texts=4, tokens=12)
    assert len(heading) == 2
    cells = first.strip("| ").split(" | ")
    assert second.strip("| ").split(" | ") == ["two", *cells[1:]]
    judge, stories = Scorer(tale), list(write_stories(tale, openings()[:4], 12))
    shares = [judge.bits(prompt, text) for prompt, text in stories]
    assert float(cells[1]) == pytest.approx(sum(s.part for s in shares) / sum(s.whole for s in shares), abs=6e-4)
    assert cells[3] == f"{sum(is_unfinished(prompt + text) for prompt, text in stories) / 4:.0%}"


def test_every_model_is_sampled_alike_whatever_its_own_defaults(tmp_path: Path) -> None:
    folder = shutil.copytree(bundled_folder(), tmp_path / "other")
    (folder / "generation_config.json").write_text('{"do_sample": false, "eos_token_id": 0}')
    tale, other = (load_model(path, dtype="float32", device="cpu") for path in (bundled_folder(), folder))
    assert tale.checkpoint.generation_config.sampling() != other.checkpoint.generation_config.sampling()
    assert [*write_stories(other, openings()[:3], 12)] == [*write_stories(tale, openings()[:3], 12)]

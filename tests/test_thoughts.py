"""What a model thinks is told apart from what it says, however its text is cut into pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from tokenglass.model.text.thoughts import TAGS, Tags, Thoughts, tags_of
from tokenglass.model.text.tokenizer import Tokenizer

PARTS = st.lists(st.sampled_from(["<think>", "</think>", "<", "</thi", "think>", "\n", " ", "a fox", "é"]), max_size=12)


def read(pieces: Sequence[str], thoughts: Thoughts) -> tuple[str, str]:
    """What was told piece by piece, put together."""
    parts = [*(thoughts.add(piece) for piece in pieces), thoughts.flush()]
    return "".join(thought for thought, _ in parts), "".join(answer for _, answer in parts)


@given(pieces=PARTS, is_thinking=st.booleans())
def test_any_pieces_give_what_an_expression_finds_in_the_whole(pieces: list[str], is_thinking: bool) -> None:
    whole = "".join(pieces)
    begin = "" if is_thinking else r"\s*<think>"
    expected = re.fullmatch(rf"(?s){begin}(.*?)(?:</think>\n*(.*))?", whole)
    thoughts = Thoughts(is_thinking=is_thinking)
    parts = read(pieces, thoughts)
    assert parts == (("", whole) if expected is None else (expected[1], expected[2] or ""))
    assert parts == (thoughts.thought, thoughts.said)
    assert thoughts.is_thinking == (expected is not None and "</think>" not in whole)


@given(text=st.text("<think>/ \nab", max_size=40), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_letters_of_tags_cut_anywhere_lose_nothing(text: str, cuts: list[int]) -> None:
    ends = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[start:end] for start, end in pairwise(ends)]
    assert read(pieces, Thoughts()) == read([text], Thoughts())


def test_tags_in_the_midst_of_an_answer_are_text() -> None:
    assert read(["Write <think>", "x</think> in", " HTML"], Thoughts()) == ("", "Write <think>x</think> in HTML")


def tokenizer_with(*names: str, special: bool) -> Tokenizer:
    backend = tiny.byte_level_tokenizer()
    (backend.add_special_tokens if special else backend.add_tokens)(list(names))
    return Tokenizer(backend)


def test_tags_that_are_special_tokens_are_known_by_their_ids() -> None:
    tokenizer = tokenizer_with("[THINK]", "[/THINK]", special=True)
    tags = tags_of("", tokenizer)
    assert tags.begin == "[THINK]"
    assert tags.begin_id is not None
    assert tags.end_id is not None
    thoughts = Thoughts(tags)
    parts = [thoughts.add(text, ids) for text, ids in (("", {tags.begin_id}), ("a fox", {9}), ("?", {tags.end_id}))]
    assert [*parts, thoughts.add("\nYes", {9})] == [("", ""), ("a fox", ""), ("?", ""), ("", "Yes")]


@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: tags.begin)
def test_tags_are_those_that_the_tokenizer_or_the_template_names(tags: Tags) -> None:
    plain = Tokenizer(tiny.byte_level_tokenizer())
    assert tags_of("no word of it", plain) == TAGS[0]
    assert tags_of(f"a {tags.begin} b {tags.end}", plain) == tags
    assert tags_of("", tokenizer_with(tags.begin, tags.end, special=False)) == tags


@pytest.mark.parametrize(("prompt", "is_thinking"), [("Hi\n<think>\n", True), ("<think> Hi\n", False), ("", False)])
def test_a_template_may_open_the_thought_itself(prompt: str, is_thinking: bool) -> None:
    tokenizer = Tokenizer(tiny.byte_level_tokenizer())
    assert Thoughts.behind(tokenizer.encode_bare(prompt), TAGS[0], tokenizer).is_thinking == is_thinking

"""Lines that end at words: nothing is lost, nothing is too wide, and text that grows lies as text that is whole."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import get_character_cell_size
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.terminal.wrapping import Paragraph, Row, on_screen, wrap

WIDTHS = st.integers(2, 40)
WORDS = st.lists(st.text("abcdefg,.é'-", min_size=1, max_size=12), min_size=1, max_size=40).map(" ".join)
TEXTS = st.lists(
    st.text(
        st.sampled_from("ab  \t日本語。「」👍\u0301\u200dé\u00a0") | st.characters(exclude_characters="\n"), max_size=9
    ).map(visible),
    max_size=30,
)


def string(row: Row) -> str:
    return "".join(segment.text for segment in row)


def cells(text: str) -> int:
    return sum(map(get_character_cell_size, text))


@given(TEXTS, WIDTHS)
def test_no_character_is_lost_and_no_line_is_wider_but_for_blanks_at_its_end(texts: list[str], width: int) -> None:
    rows = wrap([Segment(text) for text in texts], width)

    assert "".join(map(string, rows)) == "".join(texts)
    for row in rows:
        drawn = string(on_screen(row))
        assert cells(drawn) <= width
        assert "\t" not in drawn
        assert drawn.split() == string(row).split()


@given(WORDS, WIDTHS)
def test_plain_words_lie_as_the_standard_library_has_them(text: str, width: int) -> None:
    rows = [string(on_screen(row)) for row in wrap([Segment(text)], width)]

    expected = textwrap.wrap(text, width, break_on_hyphens=False)
    longest = max(map(len, text.split(" ")))
    if longest <= width:
        assert rows == expected
    else:  # textwrap fills the line before a word that is too long; here that begins a line
        assert all(len(row) <= width for row in rows)


@given(WORDS, WIDTHS)
def test_a_word_that_fits_a_line_is_never_cut(text: str, width: int) -> None:
    lines = [string(row).split() for row in wrap([Segment(text)], width)]

    whole = [word for word in text.split() if len(word) <= width]
    assert [word for line in lines for word in line if word in whole] == whole or len(whole) < len(text.split())


@given(TEXTS, WIDTHS, WIDTHS)
def test_a_paragraph_that_grows_lies_as_one_that_is_whole_also_when_resized(
    texts: list[str], width: int, other: int
) -> None:
    growing = Paragraph()
    for number, text in enumerate(texts):
        growing.add(text, Style(bold=number % 2 == 0))
        growing.rows(other if number % 5 == 4 else width)

    whole = Paragraph()
    whole.add("".join(texts), None)
    assert list(map(string, growing.rows(width))) == list(map(string, whole.rows(width)))
    assert "".join(segment.text for segment in growing.segments) == "".join(texts)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("the quick brown fox", 10, ["the quick", "brown fox"]),
        ("the  quick", 5, ["the", "quick"]),
        ("    return x", 20, ["    return x"]),
        ("a\tb", 20, ["a       b"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("日本語です。", 4, ["日本", "語で", "す。"]),
        ("日本語。", 6, ["日本", "語。"]),
        ("say 「日本」", 8, ["say 「日", "本」"]),
        ("one e\u0301e\u0301", 5, ["one", "e\u0301e\u0301"]),
        ("ab 👩\u200d👧 c", 6, ["ab", "👩\u200d👧 c"]),
        ("", 4, [""]),
    ],
)
def test_lines_end_where_a_reader_expects_it(text: str, width: int, lines: list[str]) -> None:
    assert [string(on_screen(row)) for row in wrap([Segment(text)], width)] == lines


@given(st.lists(st.tuples(st.text("ab c", max_size=6), st.booleans()), max_size=12), WIDTHS)
def test_each_character_keeps_its_style(parts: list[tuple[str, bool]], width: int) -> None:
    rows = wrap([Segment(text, Style(bold=bold)) for text, bold in parts], width)

    styled = [(char, segment.style) for row in rows for segment in row for char in segment.text]
    assert styled == [(char, Style(bold=bold)) for text, bold in parts for char in text]

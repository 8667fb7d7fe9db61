"""What is printed is the full text up to its first stop, whatever tokens it comes in, and never printed too early."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenglass.model.decoding.gate import Gate, begins
from tokenglass.model.text.tokenizer import Tokenizer

ALPHABET = "abé日👩\u200d "
PHRASES = st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=3).map(tuple)


@functools.cache
def byte_tokenizer() -> Tokenizer:
    """Every byte alone is a token, so that any text can be split anywhere."""
    return Tokenizer(tiny.byte_level_tokenizer())


def tokens_of(text: str, borders: list[bool]) -> list[int]:
    """Ids of a text: as the tokenizer has it where a border is true, else byte by byte."""
    tokenizer = byte_tokenizer()
    byte_ids = {tokenizer.piece(i): i for i in reversed(range(tokenizer.vocab_size))}
    ids: list[int] = []
    for place, part in enumerate(text.split(" ")):
        word = part if place == 0 else f" {part}"
        whole = borders[place % len(borders)] if borders else False
        ids += tokenizer.encode_bare(word) if whole else [byte_ids[bytes([byte])] for byte in word.encode()]
    return ids


def cut(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The oracle: read character by character; the first stop that is complete ends it, the longest if several are."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@settings(max_examples=300, deadline=None)
@given(text=st.text(ALPHABET, max_size=25), stops=PHRASES, borders=st.lists(st.booleans(), max_size=4))
def test_the_text_is_the_full_text_cut_at_the_first_stop(
    text: str, stops: tuple[str, ...], borders: list[bool]
) -> None:
    gate = Gate(byte_tokenizer(), (), stops)
    printed = ""
    for token_id in tokens_of(text, borders):
        printed += gate.add(token_id)
        assert text.startswith(printed)
        if gate.stopped:
            break
    printed += gate.flush()

    assert (printed, gate.stopped) == cut(text, stops)


@settings(max_examples=200, deadline=None)
@given(text=st.text(ALPHABET, max_size=25), stops=PHRASES, borders=st.lists(st.booleans(), max_size=4))
def test_only_what_may_still_become_a_stop_is_held_back(text: str, stops: tuple[str, ...], borders: list[bool]) -> None:
    gate = Gate(byte_tokenizer(), (), stops)
    content, printed = b"", ""
    for token_id in tokens_of(text, borders):
        printed += gate.add(token_id)
        content += byte_tokenizer().piece(token_id)
        if gate.stopped:
            return
        held = content.decode("utf-8", "ignore").removeprefix(printed)
        possible = any(stop.startswith(held) for stop in stops)
        assert not held or possible or not content.endswith(content.decode("utf-8", "ignore")[-1:].encode())


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two three", ("two",), "one "),
        ("xabc", ("ab", "xabc"), "x"),  # "ab" is complete first
        ("xab", ("ab", "xab"), ""),  # both at once: the longest
        ("aab", ("ab", "aaab"), "a"),
        ("日本語", ("本",), "日"),
        ("no stop", ("never",), "no stop"),
        ("ends with nev", ("never",), "ends with nev"),
        ("\n\n", ("\n",), ""),
    ],
)
def test_stops_written_out(text: str, stops: tuple[str, ...], expected: str) -> None:
    gate = Gate(byte_tokenizer(), (), stops)
    printed = ""
    for token_id in tokens_of(text, [False]):
        printed += gate.add(token_id)
        if gate.stopped:
            break
    assert printed + gate.flush() == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text(ALPHABET, min_size=1, max_size=25), bans=PHRASES, borders=st.lists(st.booleans(), max_size=4))
def test_nothing_of_a_token_that_a_ban_takes_back_was_printed(
    text: str, bans: tuple[str, ...], borders: list[bool]
) -> None:
    """Also that the phrase is found, and that the gate goes on from the rewind as if nothing had been."""
    ids = tokens_of(text, borders)
    gate = Gate(byte_tokenizer(), (), (), bans)
    printed = ""
    for count, token_id in enumerate(ids, 1):
        printed += gate.add(token_id)
        if gate.banned_from is None:
            continue
        place = gate.banned_from
        before, after = (b"".join(map(byte_tokenizer().piece, ids[:k])) for k in (place, count))
        assert any(ban.encode() in after for ban in bans)
        assert not any(ban.encode() in before for ban in bans)
        assert before.startswith(printed.encode())
        gate.rewind(place)
        other = next(i for i in range(3, 300) if byte_tokenizer().piece(i) == b"z")
        assert printed + gate.add(other) + gate.flush() == before.decode("utf-8", "replace") + "z"
        return
    assert printed + gate.flush() == text
    assert not any(ban in text for ban in bans)


def test_the_longest_possible_beginning_is_held() -> None:
    assert begins("xaa", ("aab", "ab")) == 1
    assert begins("x", ("ab",)) == 1
    assert begins("", ("ab",)) == 0


def test_healed_characters_are_not_printed_again(saved_checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_folder(saved_checkpoint)
    prompt = tokenizer.encode("The")
    gate = Gate(tokenizer, prompt, stops=("fo",), healed=2)
    printed = "".join(gate.add(token_id) for token_id in tokenizer.encode_bare(" fat"))
    assert printed + gate.flush() == "at"


def test_what_stands_before_a_phrase_that_is_taken_back_may_begin_another() -> None:
    """ "a", "a" complete nothing; then "ca" takes back from the "c", and "ab" may still begin with the "a" before."""
    tokenizer = byte_tokenizer()
    a, b, c = (tokens_of(text, [False])[0] for text in "abc")
    gate = Gate(tokenizer, (), (), ("ab", "ca"))
    printed = gate.add(a) + gate.add(c) + gate.add(a)
    assert gate.banned_from == 1
    gate.rewind(1)
    printed += gate.add(b)
    assert (printed, gate.banned_from) == ("", 0)

"""Answers in the order of their prompts, the seeds that belong to ids, and the file that keeps them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenglass.model.errors import ParameterError
from tokenglass.model.runs.answer_file import AnswerFile
from tokenglass.model.runs.answers import Origin, derive_seed, fingerprint, settings_digest
from tokenglass.model.runs.in_order import MOST_BYTES, InOrder

ORIGIN = Origin("tale", 7, "0a1b2c3d")


@given(st.permutations(range(12)))
def test_lines_pass_in_the_order_of_their_numbers_whenever_they_come(order: list[int]) -> None:
    written: list[bytes] = []
    lines = InOrder(written.append)
    for place, number in enumerate(order):
        lines.add(number, b"%d" % number)
        assert written == [b"%d" % early for early in range(len(written))]
        assert {*range(len(written))} <= {*order[: place + 1]}
    assert len(written) == 12
    assert not lines.is_full


def test_unordered_lines_pass_as_they_come() -> None:
    written: list[bytes] = []
    lines = InOrder(written.append, unordered=True)
    for number in (3, 1, 0):
        lines.add(number, b"%d" % number)
    assert written == [b"3", b"1", b"0"]


def test_lines_that_wait_for_an_earlier_one_are_bounded() -> None:
    written: list[bytes] = []
    lines = InOrder(written.append)
    lines.add(1, bytes(MOST_BYTES))
    assert not lines.is_full
    lines.add(2, b"one more")
    assert lines.is_full
    lines.add(0, b"")
    assert not lines.is_full
    assert len(written) == 3


def test_seeds_are_those_of_the_ids_and_of_the_run() -> None:
    ids = ["1", 1, 1.0, "a", "b", "é", "\ud800", -5, ""]
    seeds = {derive_seed(run, each) for run in (0, 7, 2**64 - 1) for each in ids}
    assert len(seeds) == 3 * len(ids)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len({fingerprint(each) for each in ids}) == len(ids)
    assert derive_seed(7, 1) == 571154686, "a seed of an earlier version gives the same text"


def test_a_digest_of_settings_does_not_go_by_their_order() -> None:
    assert settings_digest({"a": 1, "b": [2.5, None]}) == settings_digest({"b": [2.5, None], "a": 1})
    assert settings_digest({"a": 1}) != settings_digest({"a": 1.5})


def line_of(number: int) -> bytes:
    content = {
        "id": number,
        "text": "Ein Füchs\n" * (number % 3),
        "model": "tale",
        "run_seed": 7,
        "settings": "0a1b2c3d",
    }
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


@pytest.mark.parametrize("seed", range(20))
def test_a_file_cut_off_anywhere_keeps_the_answers_that_are_whole(tmp_path: Path, seed: int) -> None:
    content = b"".join(map(line_of, range(9)))
    path = tmp_path / "answers.jsonl"
    cut = random.Random(seed).randrange(len(content) + 1)
    path.write_bytes(content[:cut])

    file = AnswerFile(path)
    file.check(ORIGIN)
    for number in range(9):
        if fingerprint(number) not in file.done:
            file.write(line_of(number))
    file.close()

    assert path.read_bytes() == content
    assert len(file.done) in (content[:cut].count(b"\n"), content[:cut].count(b"\n") + 1)  # a last one without its end


def test_what_is_no_answer_is_refused_and_never_cut(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for content in (b"x", b"{}", b'{"id": 1}\n', b'{"id": 5, "text"\n', line_of(1) + b"text", b"[" * 10_000, b"\xff\n"):
        path.write_bytes(content)
        with pytest.raises(ParameterError, match="is no answer of this program"):
            AnswerFile(path)
        assert path.read_bytes() == content

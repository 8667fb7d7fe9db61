"""tokenglass score, through real pipes and on real terminals."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, bash, tokenglass
from terminal import Terminal

FOX = "Once upon a time there was a fox.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "fox.txt").write_text(FOX)
    (folder / "marked.txt").write_bytes(b"\xef\xbb\xbf" + FOX.encode())
    (folder / "odd.txt").write_text("The fox \x1b[31m\u202esaid\nZq gh!")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "latin.txt").write_bytes(b"na\xefve")
    return folder


def rows_of(table: bytes) -> dict[str, list[str]]:
    heading, *rows = (line.split("\t") for line in table.decode().splitlines())
    assert heading == ["bits/byte", "perplexity", "bits", "tokens", "bytes", "file"]
    return {row[-1]: row for row in rows}


def test_a_pipe_gets_one_row_and_nothing_else_and_a_byte_order_mark_is_no_text(folder: Path) -> None:
    plain = tokenglass("score", stdin=FOX.encode())
    marked = tokenglass("score", str(folder / "marked.txt"))
    assert plain.stderr == marked.stderr == b""
    (row,) = rows_of(plain.stdout).values()
    (same,) = rows_of(marked.stdout).values()
    assert row[:-1] == same[:-1]
    assert row[-1] == "-"
    assert row[4] == str(len(FOX) - 1)


def test_several_texts_have_a_row_each_and_their_mean(folder: Path) -> None:
    names = [str(folder / name) for name in ("fox.txt", "empty.txt", "odd.txt")]
    done = tokenglass("score", *names)
    rows = rows_of(done.stdout)
    assert list(rows) == [*names, "mean", "all"]
    assert rows[names[1]][:2] == ["-", "-"]
    assert b"empty.txt: the text is empty" in done.stderr
    first, second = rows[names[0]], rows[names[2]]
    assert float(rows["mean"][0]) == pytest.approx((float(first[0]) + float(second[0])) / 2, abs=1e-4)
    assert float(rows["all"][2]) == pytest.approx(float(first[2]) + float(second[2]), abs=0.2)


def test_json_lines_tell_each_token_and_add_up_to_the_text(folder: Path) -> None:
    done = tokenglass("score", "--jsonl", "--top", "2", str(folder / "fox.txt"), str(folder / "empty.txt"))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    tokens = [line for line in lines if line["record"] == "token" and line["file"].endswith("fox.txt")]
    scores = [line for line in lines if line["record"] == "score"]
    assert [Path(score["file"]).name for score in scores] == ["fox.txt", "empty.txt"]
    assert "".join(token["piece"] for token in tokens[1:]) == FOX.strip()
    assert [FOX.index(token["piece"], token["offset"]) for token in tokens[1:]] == [t["offset"] for t in tokens[1:]]
    assert sum(token["logprob"] for token in tokens[1:]) == pytest.approx(-scores[0]["bits"] * 0.6931471805599453)
    assert all(len(token["candidates"]) == 2 for token in tokens[1:])
    assert tokens[0]["logprob"] is None
    assert scores[1]["perplexity"] is None
    facts = json.loads(tokenglass("score", "--json", str(folder / "fox.txt")).stdout)
    assert facts["texts"][0]["bits"] == pytest.approx(scores[0]["bits"])


def test_openai_s_shape_is_one_json_object_with_a_choice_for_each_text(folder: Path) -> None:
    answer = json.loads(tokenglass("score", "--openai", str(folder / "fox.txt"), "-", stdin=b"The end").stdout)
    assert [choice["text"] for choice in answer["choices"]] == [FOX.strip(), "The end"]
    assert all(choice["logprobs"]["token_logprobs"][0] is None for choice in answer["choices"])
    assert all(len(top) == 5 for top in answer["choices"][0]["logprobs"]["top_logprobs"][1:])


def test_a_text_beyond_the_window_says_how_it_is_read() -> None:
    done = tokenglass("score", "--window", "8", "--stride", "2", stdin=b"The fox and the hen " * 4)
    assert b"windows of 8, one every 2; each token sees at least 6 before it" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("latin.txt",), 2, "not valid UTF-8 at byte 2"),
        (("none.txt",), 2, "No such file"),
        ((".",), 2, "not a regular file"),
        (("-", "-"), 2, "only once"),
        (("fox.txt", "--json", "--jsonl"), 2, "exclude each other"),
        (("fox.txt", "--stride", "0"), 2, "--stride 0"),
    ],
)
def test_what_cannot_be_scored_is_one_line(folder: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    line = shlex.join([f"{folder}/{part}" if part.endswith(".txt") or part == "." else part for part in arguments])
    assert_one_line_error(bash(f"echo x | tokenglass score {line}"), code, words)


def test_no_text_at_all_is_said() -> None:
    terminal = Terminal(program=f"exec {SCRIPTS}/tokenglass score")
    assert terminal.finish() == 2
    assert "no text; name a file, or pipe a text in" in terminal.text().replace("\n", " ")


def test_a_closed_pipe_is_silent(folder: Path) -> None:
    done = bash("yes 'The fox said hello.' | head -2000 | tokenglass score --jsonl | head -1; echo ${PIPESTATUS[2]}")
    assert done.stdout.decode().splitlines()[-1] == "141"
    assert done.stderr == b""


def test_a_terminal_shows_the_text_its_legend_and_its_worst_tokens(folder: Path) -> None:
    terminal = Terminal(program=f"exec {SCRIPTS}/tokenglass score --worst 2 {folder}/odd.txt", COLORTERM="truecolor")
    assert terminal.finish() == 0
    lines = terminal.lines()
    assert lines[0].startswith("The fox ␛[31m‹U+202E›said")  # nothing of the text is a code of the terminal's
    assert lines[1] == "Zq gh!"
    text = "\n".join(lines)
    assert "< 1 bit  1–4 bits  4–8 bits  ≥ 8 bits" in text
    assert "bits per byte" in text
    assert "the first behind <|endoftext|>" in text
    assert lines[-3].split() == ["bits", "rank", "entropy", "at", "token", "expected"]
    worst = [float(line.split()[0]) for line in lines[-2:]]
    assert worst == sorted(worst, reverse=True)
    colors = {cell.fg for row in terminal.screen.buffer.values() for cell in row.values()}
    assert colors >= {"3f83c8", "dd4b39", "default"}


def test_without_colour_surprise_is_bold_and_underlined(folder: Path) -> None:
    terminal = Terminal(program=f"exec {SCRIPTS}/tokenglass score {folder}/odd.txt", NO_COLOR="1", columns=40)
    assert terminal.finish() == 0
    cells = [cell for row in terminal.screen.buffer.values() for cell in row.values()]
    assert {cell.fg for cell in cells} == {"default"}
    assert any(cell.bold and cell.underscore for cell in cells)


def test_a_dumb_terminal_gets_letters_below_the_tokens(folder: Path) -> None:
    program = f"exec {SCRIPTS}/tokenglass score {folder}/odd.txt"
    terminal = Terminal(program=program, TERM="dumb", LC_ALL="C", columns=40)
    assert terminal.finish() == 0
    text, letters = [line for line in terminal.lines() if not line.startswith(("starting", "loading"))][:2]
    assert text.startswith("The fox \\x1b[31m\\u202e")
    assert "c" in letters
    assert set(letters) <= set(" abc")
    assert "\x1b" not in terminal.output
    assert "c >= 8 bits" in " ".join(terminal.text().split())
    assert all(len(line) <= 40 for line in terminal.lines())


def test_nothing_imports_torch(folder: Path) -> None:
    program = (
        "import sys\nsys.modules['torch'] = None\n"
        f"sys.argv = ['tokenglass', 'score', {str(folder / 'fox.txt')!r}, '--openai']\n"
        "from tokenglass.cli.__main__ import tokenglass\ntokenglass()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "tale"

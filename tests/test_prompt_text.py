"""Text that comes from files, pipes and arguments: a byte order mark is none, and a dash does not make an option."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import assert_one_line_error, generate, tokenglass
from test_chat import CHATML, chat_checkpoint

from tokenglass.cli.run.prompt import decode
from tokenglass.model.errors import ParameterError
from tokenglass.model.text.chat import parse_messages

MARK = b"\xef\xbb\xbf"
SETTINGS = ("-n", "8", "--seed", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_checkpoint(tmp_path_factory.mktemp("chat"), CHATML)


def test_a_byte_order_mark_is_no_text_and_one_within_a_text_stays() -> None:
    assert decode(MARK + "a\ufeffb\n".encode(), "stdin", keep_newline=False) == "a\ufeffb"


def test_a_prompt_file_and_a_pipe_may_begin_with_one(saved_checkpoint: Path, tmp_path: Path) -> None:
    model = ("-m", str(saved_checkpoint), *SETTINGS)
    file = tmp_path / "prompt.txt"
    file.write_bytes(MARK + b"The fox\r\n")
    plain, from_file = generate(*model, "The fox"), generate(*model, "--prompt-file", str(file))
    piped = generate(*model, stdin=MARK + b"The fox\n")
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == from_file.stdout == piped.stdout != b""


def test_a_list_of_messages_may_begin_with_one(folder: Path) -> None:
    talk = json.dumps([{"role": "user", "content": "hello"}]).encode()
    model = ("-m", str(folder), "--chat", *SETTINGS)
    plain, marked = generate(*model, stdin=talk), generate(*model, stdin=MARK + talk)
    assert (marked.returncode, marked.stdout) == (0, plain.stdout), marked.stderr


def test_schemas_and_grammars_may_begin_with_one(saved_checkpoint: Path, tmp_path: Path) -> None:
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_bytes(MARK + b'{"const": 7}')
    grammar.write_bytes(MARK + b'start: "fox"')
    model = ("-m", str(saved_checkpoint), *SETTINGS)
    assert generate(*model, "x", "--json-schema", str(schema)).stdout == b"7"
    assert generate(*model, "x", "--grammar", str(grammar)).stdout == b"fox"


def test_the_lines_of_a_chat_may_begin_with_one(folder: Path) -> None:
    model = ("chat", "-m", str(folder), "-n", "6", "--seed", "1")
    plain, marked = tokenglass(*model, stdin=b"hello\n"), tokenglass(*model, stdin=MARK + b"hello\n")
    assert (marked.returncode, marked.stdout) == (0, plain.stdout), marked.stderr


@pytest.mark.parametrize("text", ["-5 degrees", "-nice weather", "- item", "--- title", "-x", "--bold words"])
def test_the_error_for_a_text_that_begins_with_a_dash_names_the_way_out(text: str) -> None:
    assert_one_line_error(generate(text), 2, "goes behind --")


def test_behind_two_dashes_it_is_a_text(saved_checkpoint: Path) -> None:
    done = generate("-m", str(saved_checkpoint), *SETTINGS, "--echo", "--", "-5 degrees")
    assert (done.returncode, done.stdout[:10]) == (0, b"-5 degrees"), done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16"])
def test_a_chat_is_read_and_rendered_whatever_the_locale_says(folder: Path, encoding: str) -> None:
    talk = json.dumps([{"role": "user", "content": "schön 🦊 日本語"}], ensure_ascii=False).encode()
    model = ("-m", str(folder), "--chat", *SETTINGS)
    plain = generate(*model, stdin=talk)
    odd = generate(*model, stdin=talk, PYTHONIOENCODING=encoding, LC_ALL="C", LANG="de_DE.ISO-8859-1")
    assert (odd.returncode, odd.stdout) == (0, plain.stdout), odd.stderr


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        ([{"role": "usr", "content": "x"}], ("message 1", "'usr'", "assistant")),
        ([{"role": 7, "content": "x"}], ("message 1", "role 7")),
        ([{"role": ["user"], "content": "x"}], ("message 1",)),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": 7}], ("message 2", "content")),
        ([{"role": "user", "content": None}], ("message 1", "content")),
        ([{"role": "user", "content": [{"type": "image"}]}], ("message 1", "'image'")),
        ([{"role": "user", "content": ["x"]}], ("message 1", "'x'")),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], ("message 1", "text")),
        ([{"role": "user", "content": "\ud800"}], ("message 1", "surrogate")),
        ([{"role": "user", "content": "x", "name": "\udfff"}], ("message 1", "surrogate")),
        (["user"], ("message 1", "'user'")),
    ],
)
def test_a_message_of_another_form_is_one_line_that_says_which(talk: list[object], words: tuple[str, ...]) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_messages(json.dumps(talk))
    assert str(caught.value).isprintable()
    for word in words:
        assert word in str(caught.value)


def test_a_saved_chat_is_a_list_of_messages_for_generate(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    lines = f"hello <|im_end|> there\n/save {saved}\n"
    done = tokenglass("chat", "-m", str(folder), "-n", "6", "--seed", "1", stdin=lines.encode())
    assert done.returncode == 0, done.stderr
    assert generate("-m", str(folder), "--chat", *SETTINGS, stdin=saved.read_bytes()).returncode == 0

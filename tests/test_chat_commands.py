"""What begins with a slash in a chat, what is typed around it, and the model that answers where none is named."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import scripted_run
from shell import assert_one_line_error, bash, generate, tokenglass
from test_chat import CHATML, chat_checkpoint

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.run.settings import change
from tokenglass.cli.widgets.answer_tokens import AnswerTokens
from tokenglass.cli.widgets.widget import ASCII, UNICODE
from tokenglass.model.checkpoint.store import Origin, bundled_folder, write_origin
from tokenglass.model.errors import ParameterError

GREETING = [{"role": "user", "content": "Hi <|im_end|>"}, {"role": "assistant", "content": "Hello.", "name": "fox"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_checkpoint(tmp_path_factory.mktemp("chat"), CHATML)


def talk(folder: Path, *lines: str, options: str = "-n 6 --seed 1", code: int = 0) -> tuple[str, str]:
    """What a chat that is fed by a pipe writes, and says."""
    text = "".join(f"{line}\n" for line in lines)
    done = tokenglass("chat", "-m", str(folder), *shlex.split(options), stdin=text.encode())
    assert done.returncode == code, done.stderr
    return done.stdout.decode("utf-8", "replace"), done.stderr.decode()


def test_save_and_load_take_a_conversation_into_another_chat_and_back(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps(GREETING))
    written, messages = talk(folder, f"/load {first}", f"/save {second}", "/undo", "/retry", "/load", f"/save {first}")
    assert json.loads(second.read_text()) == GREETING
    assert messages.splitlines() == [
        f"2 messages read from {first}",
        f"2 messages written to {second}",
        "taken back: Hi <|im_end|>",
        "there is no message to answer again",
        "name a file, as in /load talk.json",
        "there is nothing to save yet",
    ]
    assert written == ""
    listed = generate("-m", str(folder), "--chat", "-n", "6", "--seed", "1", stdin=json.dumps(GREETING[:1]).encode())
    first.write_text(json.dumps(GREETING[:1]))
    written, messages = talk(folder, f"/load {first}", "/retry", f"/save {first}")
    assert "waits for an answer" in messages
    assert written == listed.stdout.decode("utf-8", "replace") + "\n"
    assert [message["role"] for message in json.loads(first.read_text())] == ["user", "assistant"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'[{"role": "user", "content": 1}]',
        b'[{"role": "user", "content": "\\ud800"}]',
        b'[{"role": "\x1b[2J", "content": "x"}]',
        b'[{"role": "assistant", "content": [{"type": "image", "image": "x"}]}]',
        b'[{"role": "assistant", "content": "the template refuses this"}]',
        b'[{"role": "user", "content": ' + b"9" * 5000 + b"}]",
    ],
)
def test_a_damaged_or_hostile_file_is_one_line_and_the_conversation_stays(tmp_path: Path, content: bytes) -> None:
    strict = "{% if messages[0].role == 'assistant' %}{{ raise_exception('a user comes first') }}{% endif %}"
    folder = chat_checkpoint(tmp_path / "model", strict + CHATML)
    bad, before, after = tmp_path / "bad.json", tmp_path / "before.json", tmp_path / "after.json"
    bad.write_bytes(content)
    _, messages = talk(folder, "hello", f"/save {before}", f"/load {bad}", f"/save {after}")
    first, refused, last = messages.splitlines()
    assert first.endswith(str(before))
    assert last.endswith(str(after))
    assert refused.isprintable()
    assert len(refused) < 700
    assert before.read_text() == after.read_text() != "[]\n"
    assert bad.read_bytes() == content


def test_a_file_that_the_chat_did_not_write_is_never_written_over(folder: Path, tmp_path: Path) -> None:
    precious, own = tmp_path / "precious", tmp_path / "own.json"
    precious.write_text("precious")
    _, messages = talk(
        folder, "hello", f"/save {precious}", f"/save {own}", "more", f"/save {own}", "/save /dev/null/x"
    )
    assert precious.read_text() == "precious"
    assert "already exists" in messages.splitlines()[0]
    assert len(json.loads(own.read_text())) == 4
    assert "/dev/null/x: " in messages
    assert sorted(tmp_path.iterdir()) == sorted([precious, own])


def test_set_changes_what_the_option_would_have_set(folder: Path) -> None:
    written, messages = talk(folder, "/set temperature 0", "/set n 9", "/set --stop 'no such text'", "hello")
    assert written == talk(folder, "hello", options="-n 9 --seed 1 -t 0")[0]
    assert written != talk(folder, "hello")[0]
    assert messages.splitlines()[1].startswith("temperature 0 (greedy)")
    assert messages.splitlines()[1].endswith("seed 1, max new tokens 9")


@pytest.mark.parametrize(
    "setting", ["temperature -1", "temperature hot", "temprature 1", "top-p 2", "samplers top-k,foo", "seed -1"]
)
def test_set_refuses_with_the_words_of_the_option(folder: Path, setting: str) -> None:
    name, value = setting.split()
    by_option = generate(f"--{name}", value, "hello").stderr.decode().removeprefix("generate: ").strip()
    _, messages = talk(folder, f"/set {setting}", "/set")
    refused, stays = messages.splitlines()
    assert refused.split("; as in")[0] == by_option.split("; see")[0]
    assert stays.startswith("temperature 0.8")


@pytest.mark.parametrize("words", ["", "'", "temperature", "temperature 1 2", "help", "--", "model tale", "m x"])
def test_what_is_no_setting_is_one_line(words: str) -> None:
    with pytest.raises(ParameterError) as refused:
        change(words, ControlOptions(), SamplingOptions())
    assert "\n" not in str(refused.value)


def test_a_setting_leaves_the_others_as_they_are() -> None:
    control, sampling = ControlOptions(max_new_tokens=3, stop=["a"]), SamplingOptions({"top_k": 3}, seed=7)
    assert change("top_p 0.5", control, sampling) == (control, SamplingOptions({"top_k": 3, "top_p": 0.5}, seed=7))
    assert change("stop b", control, sampling) == (ControlOptions(max_new_tokens=3, stop=["b"]), sampling)


def test_a_backslash_at_the_end_takes_the_next_line_into_the_message(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    talk(folder, "one\\", "two\\", "", f"/save {saved}", "three\\")
    assert json.loads(saved.read_text())[0] == {"role": "user", "content": "one\ntwo\n"}


def test_retry_takes_the_next_seed_and_continue_goes_on(folder: Path) -> None:
    written, _ = talk(folder, "hello", "/retry", "/set seed 1", "/undo", "hello", "/continue")
    first, second, *_ = (talk(folder, "hello", options=f"-n 6 --seed {seed}")[0] for seed in (1, 2))
    assert written.startswith(first + second + first)
    assert written.removeprefix(first + second + first).strip()


def test_system_is_shown_set_and_taken_away(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    _, messages = talk(
        folder, "/system", "/system Be brief.", "/system", "hello", f"/save {saved}", "/system -", "/clear"
    )
    assert messages.splitlines() == [
        "there is no system message; /system TEXT gives one",
        "the system message is set",
        "the system message is: Be brief.",
        f"3 messages written to {saved}",
        "no system message any more",
        "the conversation is forgotten",
    ]
    assert json.loads(saved.read_text())[0] == {"role": "system", "content": "Be brief."}


def test_tokens_flow_and_thoughts_look_into_the_last_answer(folder: Path) -> None:
    _, messages = talk(folder, "/tokens", "/flow", "/thoughts", "hello", "/tokens", "/flow 2", "/flow 7", "/thoughts")
    lines = messages.splitlines()
    assert lines[:2] == ["there is no answer to look into yet"] * 2
    assert lines[2] == lines[-1] == "there are no thoughts before the last answer"
    assert "positions of the context, 6 of them the answer" in messages
    assert "final" in lines[3]
    assert "/flow N explains a token of the last answer, 1 to 6" in lines[-2]
    assert "position" in messages


@pytest.mark.parametrize(("line", "message"), [("/retyr", "did you mean /retry?"), ("/undo it", "/undo stands alone")])
def test_a_command_that_is_none_is_told(folder: Path, line: str, message: str) -> None:
    assert message in talk(folder, line)[1]


def test_quit_ends_the_chat_and_what_follows_is_not_read(folder: Path) -> None:
    assert talk(folder, "/quit", "hello") == ("", "")


def test_help_names_every_command(folder: Path) -> None:
    _, messages = talk(folder, "/help")
    names = ["retry", "continue", "undo", "clear", "system", "set", "tokens", "flow", "thoughts", "save", "load"]
    names += ["help", "quit"]
    assert [line.split()[0] for line in messages.splitlines()[:-1]] == [f"/{name}" for name in names]
    assert max(map(len, messages.splitlines())) < 80


def test_without_a_name_the_chat_model_that_is_here_answers(folder: Path, tmp_path: Path) -> None:
    empty = tokenglass("chat", stdin=b"hello\n", TOKENGLASS_HOME=str(tmp_path))
    assert_one_line_error(empty, 1, "no chat model is here yet", "`tokenglass pull smollm2`")
    models = tmp_path / "models"
    (models / "a-plain-one").mkdir(parents=True)
    for file in bundled_folder().iterdir():
        (models / "a-plain-one" / file.name).symlink_to(file)
    (models / "some-chat").symlink_to(folder)
    for name in ("a-plain-one", "some-chat"):
        write_origin(models / name, Origin("test"))
    done = tokenglass("chat", "-n", "6", "--seed", "1", stdin=b"hello\n", TOKENGLASS_HOME=str(tmp_path))
    assert done.stdout.decode("utf-8", "replace") == talk(folder, "hello")[0]


def test_on_a_closed_stdin_a_chat_just_ends(folder: Path) -> None:
    done = bash(f"tokenglass chat -m {shlex.quote(str(folder))} <&-")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_the_tokens_of_an_answer_fit_any_width(width: int, glyphs: Any) -> None:
    choices = [scripted_run.choice(piece.encode(), number) for number, piece in enumerate(scripted_run.STORY)]
    rows = AnswerTokens(choices).rows(width, glyphs)
    words = " ".join("".join(segment.text for segment in row) for row in rows).split()
    assert [int(word) for word in words if word.isdecimal()] == list(range(1, len(choices) + 1))
    assert all(sum(segment.cell_length for segment in row) <= max(width, 30) for row in rows)

"""Many prompts from a pipe or a file: a line of JSON for each, whatever stops the run on its way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from shell import ENVIRONMENT, SCRIPTS, generate
from test_chat import CHATML, chat_checkpoint

from tokenglass.model.runs.answers import derive_seed

NAMES = ["fox", "hen", "bear", "cat", "boy", "girl", "dog", "bird", "tree", "king"]
Line = dict[str, Any]


def story(number: int) -> str:
    return f"Once upon a time a {NAMES[number % 10]} and a {NAMES[number // 10 % 10]} met number {number}"


def lines_of(content: bytes) -> list[Line]:
    return [json.loads(line) for line in content.splitlines()]


def each_line(text: str, *arguments: str) -> list[Line]:
    done = generate("--each-line", "-n", "8", "--seed", "7", *arguments, stdin=text.encode())
    assert done.returncode == 0, done.stderr
    return lines_of(done.stdout)


def prompts(entries: Sequence[Any], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    return generate("--prompts", "-", "-n", "8", "--seed", "7", *arguments, stdin=text.encode())


def single(prompt: str, seed: int, *arguments: str) -> str:
    done = generate(prompt, "-n", "8", "--seed", str(seed), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_each_line_is_answered_in_order_by_what_its_seed_gives_alone() -> None:
    answers = each_line("Once upon a time\nThe fox\n\nThe hen and the bear\n")
    assert [answer["id"] for answer in answers] == [1, 2, 4]
    for answer, prompt in zip(answers, ("Once upon a time", "The fox", "The hen and the bear"), strict=True):
        assert answer["seed"] == derive_seed(7, answer["id"])
        assert answer["text"] == single(prompt, answer["seed"])
        assert answer["finish_reason"] == "length"
        assert answer["new_tokens"] == 8
        assert 0 < answer["prompt_tokens"] < 8
        assert "choices" not in answer


def test_the_lines_are_the_same_whatever_slots_there_are_and_who_reads_them() -> None:
    text = "".join(story(number) + "\n" for number in range(20))
    expected = each_line(text)
    assert each_line(text, "--slots", "1") == each_line(text, "--slots", "7", "--threads", "2") == expected
    unordered = each_line(text, "--slots", "7", "--unordered")
    assert sorted(unordered, key=lambda answer: int(answer["id"])) == expected


def test_a_seed_follows_the_id_and_not_the_place() -> None:
    entries = [{"id": f"n{number}", "prompt": story(number)} for number in range(6)]
    forth, back = prompts(entries), prompts(entries[::-1])
    texts = [{answer["id"]: answer["text"] for answer in lines_of(done.stdout)} for done in (forth, back)]
    assert texts[0] == texts[1]
    assert len(set(texts[0].values())) == 6


def test_a_line_has_options_of_its_own_by_the_names_of_the_command_line() -> None:
    stop = single("The fox", 1, "--temperature", "0", "-n", "5")[-4:]
    entries = [
        {"id": "long", "prompt": "The fox", "max_new_tokens": 12, "seed": 3},
        {"id": "greedy", "prompt": "The fox", "temperature": 0, "max_tokens": 5},
        {"id": "stopped", "prompt": "The fox", "temperature": 0, "stop": [stop, "x!"], "ignore_eos": True},
        {"id": "fitted", "prompt": "The fox was", "choice": [" red", " blue"], "top_k": None},
    ]
    done = prompts(entries)
    assert done.returncode == 0, done.stderr
    answers = {answer["id"]: answer for answer in lines_of(done.stdout)}
    assert answers["long"]["text"] == single("The fox", 3, "-n", "12")
    assert answers["greedy"]["text"] == single("The fox", 1, "--temperature", "0", "-n", "5")
    assert answers["stopped"]["finish_reason"] == "stop"
    assert answers["stopped"]["text"] == single("The fox", 1, "--temperature", "0", "--stop", stop)
    assert answers["fitted"]["text"] in (" red", " blue")


def test_candidates_are_those_of_the_single_run() -> None:
    (answer,) = each_line("The fox\n", "--top", "3")
    done = generate("The fox", "-n", "8", "--seed", str(answer["seed"]), "--jsonl", "--candidates", "3")
    steps = [line for line in lines_of(done.stdout) if line["record"] == "step"]
    assert answer["choices"] == [choice for step in steps for choice in step["choices"]]
    assert all(3 <= len(choice["candidates"]) <= 4 for choice in answer["choices"])


def test_choices_that_a_ban_takes_back_are_not_part_of_an_answer() -> None:
    (free,) = each_line("The fox\n", "--candidates", "0")
    banned = free["text"][4:7]
    (answer,) = each_line("The fox\n", "--candidates", "0", "--ban", banned)
    assert banned not in answer["text"]
    assert "".join(choice["piece"] for choice in answer["choices"]) == answer["text"]
    assert answer["new_tokens"] == len(answer["choices"])


def test_a_line_that_cannot_be_answered_is_told_by_its_number_and_stops_no_other() -> None:
    text = b"".join(
        (
            b'{"id": "a", "prompt": "The fox"}\n',
            b"not json\n",
            b'{"id": "b", "prompt": "The fox", "temperatur": 0}\n',
            b'{"id": "c"}\n',
            b'{"id": "a", "prompt": "again"}\n',
            b'{"id": ["d"], "prompt": "The fox"}\n',
            b'{"id": "e", "prompt": "\xff"}\n',
            b'{"id": "f", "prompt": "The fox", "json_schema": "/etc/passwd"}\n',
            b'{"id": "g", "prompt": "The fox", "temperature": -1}\n',
            b'{"id": "h", "prompt": "The fox", "grammar": "/etc/passwd"}\n',
            b'{"id": "i", "prompt": ' + json.dumps("fox " * 5000).encode() + b"}\n",
            b'{"id": "z", "prompt": "The hen"}\n',
        )
    )
    done = generate("--prompts", "-", "-n", "4", "--seed", "7", stdin=text)
    assert done.returncode == 1
    answers = lines_of(done.stdout)
    assert [answer["id"] for answer in answers] == ["a", 2, "b", "c", 6, 7, "f", "g", "h", "i", "z"]
    assert {answer["id"] for answer in answers if answer["finish_reason"] != "error"} == {"a", "z"}
    lines = done.stderr.decode().splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [f"line {number}" for number in range(2, 12)]
    assert "did you mean --temperature?" in lines[1]
    assert "2 prompts answered, 10 could not be" in lines[-1]
    assert b"Traceback" not in done.stderr
    assert b"root:" not in done.stdout


def test_fail_fast_begins_nothing_behind_a_line_that_cannot_be_answered() -> None:
    done = generate("--prompts", "-", "-n", "4", "--fail-fast", stdin=b'{"prompt": "a"}\n?\n{"prompt": "b"}\n')
    assert done.returncode == 1
    assert [answer["finish_reason"] for answer in lines_of(done.stdout)] == ["length", "error"]


def test_messages_and_chat_lines_go_through_the_template(tmp_path: Path) -> None:
    chat_checkpoint(tmp_path / "chat", CHATML)
    model = ("-m", str(tmp_path / "chat"))
    done = prompts([{"id": 1, "messages": [{"role": "user", "content": "The fox"}]}], *model)
    assert done.returncode == 0, done.stderr
    (answer,) = lines_of(done.stdout)
    line = generate("--each-line", "--chat", "-n", "8", "--seed", "7", *model, stdin=b"The fox\n")
    assert lines_of(line.stdout)[0]["text"] == answer["text"]
    assert answer["text"] == single("The fox", answer["seed"], "--chat", *model)


def test_a_file_of_answers_is_gone_on_with_and_is_byte_for_byte_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    text = "".join(story(number) + "\n" for number in range(30))
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    assert each_line(text, "--output", str(whole)) == []
    content = whole.read_bytes()
    assert whole.stat().st_mode & 0o777 == 0o600
    assert len(lines_of(content)) == 30
    border = content.index(b"\n", 3000) + 1
    for end in (0, 5, border - 1, border, border + 7, len(content)):
        torn.write_bytes(content[:end])
        done = generate(
            "--each-line", "-n", "8", "--output", str(torn), *(() if end > 7 else ("--seed", "7")), stdin=text.encode()
        )
        assert done.returncode == 0, done.stderr  # the seed is that of the lines which are there
        assert torn.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a list of things\n", "line 1 is no answer"),
        (b"a list without a last newline", "line 1 is no answer"),
        (b'{"id": 1, "prompt": "without a last newline"}', "line 1 is no answer"),
        (b'{"id": 1, "model": "tale", "run_seed": 8, "settings": "0"}\n', "seed 8 and not 7"),
        (b'{"id": 1, "model": "tale", "run_seed": 7, "settings": "0"}\n', "other settings"),
        (b'{"id": 1, "model": "other", "run_seed": 7, "settings": "0"}\n', "'other' and not 'tale'"),
        (
            b"".join(b'{"id": 1, "model": "tale", "run_seed": 7, "settings": "%d"}\n' % part for part in range(2)),
            "line 2 is of another run",
        ),
    ],
)
def test_a_file_that_is_no_beginning_of_this_run_is_refused_and_stays(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_bytes(content)
    done = generate("--each-line", "--seed", "7", "--output", str(file), stdin=b"The fox\n")
    assert done.returncode == 2
    assert reason in done.stderr.decode()
    assert file.read_bytes() == content


def test_other_settings_of_any_kind_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    each_line("The fox\n", "--output", str(file))
    for changed in (("-n", "9"), ("--temperature", "0.5"), ("--stop", "x"), ("--quantize", "int8"), ("--top", "2")):
        done = generate("--each-line", "-n", "8", "--output", str(file), *changed, stdin=b"The fox\nThe hen\n")
        assert done.returncode == 2, changed
        assert b"other settings" in done.stderr
    for same in (("--slots", "3"), ("--threads", "1"), ("--prefill-chunk", "5"), ("--unordered",)):
        done = generate("--each-line", "-n", "8", "--output", str(file), *same, stdin=b"The fox\n")
        assert done.returncode == 0, done.stderr
    assert len(lines_of(file.read_bytes())) == 1


def start(*arguments: str, stdin: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [SCRIPTS / "generate", *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )


def wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} has no {count} lines")


@pytest.mark.slow
def test_runs_that_are_killed_at_random_lose_and_repeat_nothing(tmp_path: Path) -> None:
    prompts_file, file = tmp_path / "prompts.txt", tmp_path / "answers.jsonl"
    prompts_file.write_text("".join(story(number) + "\n" for number in range(300)))
    draw = random.Random(11)
    for stop in (20, 70, 130, 190, 240):
        with prompts_file.open("rb") as opened:
            process = start("--each-line", "-n", "8", "--seed", "5", "--output", str(file), stdin=opened)
            wait_for_lines(file, stop)
            time.sleep(draw.random() / 20)
            process.kill()
            process.communicate()
    with prompts_file.open("rb") as opened:
        done = start("--each-line", "-n", "8", "--seed", "5", "--output", str(file), stdin=opened)
        _, errors = done.communicate()
    assert done.returncode == 0, errors
    assert [answer["id"] for answer in lines_of(file.read_bytes())] == list(range(1, 301))
    assert b"were before" in errors


def test_ctrl_c_finishes_what_is_in_work_and_says_how_to_go_on(tmp_path: Path) -> None:
    file, prompts_file = tmp_path / "answers.jsonl", tmp_path / "prompts.txt"
    prompts_file.write_text("".join(story(number) + "\n" for number in range(400)))
    with prompts_file.open("rb") as opened:
        process = start("--each-line", "-n", "12", "--slots", "4", "--output", str(file), stdin=opened)
        wait_for_lines(file, 8)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    answers = lines_of(file.read_bytes())
    assert process.returncode == 130
    assert 8 <= len(answers) < 400
    assert {answer["finish_reason"] for answer in answers} <= {"length", "eos"}
    assert [answer["id"] for answer in answers] == list(range(1, len(answers) + 1))
    assert f"the same command goes on with {file}" in errors.decode()
    assert b"the next Ctrl-C quits at once" in errors


def test_a_prompt_is_answered_before_the_next_one_comes() -> None:
    with start("--each-line", "-n", "4", "--seed", "1", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(story(number).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number + 1
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_reader_that_leaves_ends_the_run_without_a_word() -> None:
    with start("--each-line", "-n", "4", "--quiet", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"".join(story(number).encode() + b"\n" for number in range(50)))
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_two_runs_never_write_one_file(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    first = start("--each-line", "-n", "4", "--output", str(file), stdin=subprocess.PIPE)
    assert first.stdin is not None
    first.stdin.write(b"The fox\n")
    first.stdin.flush()
    wait_for_lines(file, 1)
    second = generate("--each-line", "-n", "4", "--output", str(file), stdin=b"The hen\n")
    assert second.returncode == 2
    assert b"another process writes it now" in second.stderr
    first.communicate()
    assert len(lines_of(file.read_bytes())) == 1


def test_only_a_regular_file_keeps_answers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none" / "file", Path("/dev/null")):
        done = generate("--each-line", "--output", str(path), stdin=b"The fox\n")
        assert done.returncode == 2, path
        assert str(path) in done.stderr.decode()
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--each-line", "--num-samples", "2"), "--num-samples has no effect here; it needs a single prompt"),
        (("--each-line", "--mode", "jacobi"), "--mode has no effect"),
        (("--each-line", "--trace", "x"), "--trace has no effect"),
        (("--each-line", "--prompts", "-"), "give one of them"),
        (("--each-line", "--view", "plain"), "--view plain has one text"),
        (("--each-line", "--view", "live"), "--view live needs a terminal"),
        (("The fox", "--slots", "2"), "--slots has no effect here; it needs --each-line or --prompts"),
        (("--prompts", "missing.jsonl"), "missing.jsonl: No such file"),
        (("--each-line", "--slots", "0"), "--slots"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_read(
    arguments: tuple[str, ...], message: str
) -> None:
    done = generate(*arguments, stdin=b"The fox\n")
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert done.stdout == b""


def test_nothing_is_read_of_torch() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['generate', '--each-line', '-n', '3']\n"
        "from tokenglass.cli.app import generate_app\n"
        "try:\n    generate_app()()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [SCRIPTS / "python", "-c", code], input=b"The fox\n", capture_output=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert lines_of(done.stdout)[0]["new_tokens"] == 3

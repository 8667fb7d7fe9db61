"""generate between other programs: stdout is the text, exit codes are the shell's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, bash, generate

from tokenglass.model.records.steps import Finish, Step
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace import read

GREEDY = ("--temperature", "0", "-n", "12")


def test_a_pipe_gets_the_text_and_nothing_else() -> None:
    piped = generate(*GREEDY, stdin=b"The fox\n")
    done = generate("The fox", *GREEDY)
    assert piped.returncode == 0
    assert piped.stderr == b""
    assert piped.stdout == done.stdout
    assert b"\x1b" not in piped.stdout
    assert piped.stdout.startswith((b" ", b",", b".")), "the leading space is kept and the prompt is not repeated"


def test_echo_writes_the_prompt_first() -> None:
    plain, echoed = generate("The fox", *GREEDY), generate("The fox", "--echo", *GREEDY)
    assert echoed.stdout == b"The fox" + plain.stdout


def test_parts_are_joined_by_newlines_and_a_dash_is_stdin() -> None:
    done = generate("-", "The end", "--echo", *GREEDY, stdin=b"Once\n")
    assert done.stdout.startswith(b"Once\nThe end")


def test_keep_newline_keeps_it() -> None:
    done = generate("--keep-newline", "--echo", *GREEDY, stdin=b"Once\n")
    assert done.stdout.startswith(b"Once\n")


def test_an_open_pipe_that_nobody_writes_to_never_hangs_a_run_with_a_prompt() -> None:
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [SCRIPTS / "generate", "The fox", *GREEDY],
            stdin=reading,
            capture_output=True,
            timeout=60,
            check=False,
            env=ENVIRONMENT,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 0


def test_a_prompt_file_is_the_prompt(tmp_path) -> None:
    (tmp_path / "prompt.txt").write_text("The fox\n")
    assert (
        generate("--prompt-file", str(tmp_path / "prompt.txt"), *GREEDY).stdout == generate("The fox", *GREEDY).stdout
    )


def test_a_reader_that_leaves_early_ends_the_run_quietly() -> None:
    done = bash("generate 'The fox' -n 400 --seed 1 | head -c 20")
    assert len(done.stdout) == 20
    assert done.stderr == b""
    assert done.returncode == 141


def test_jsonl_is_a_run_line_steps_and_a_finish_that_tell_the_same_text() -> None:
    done = generate("--jsonl", "The fox", "--seed", "7", "-n", "12")
    run, *records = read(done.stdout.decode().splitlines())
    assert isinstance(run, Run)
    assert run.seed == 7
    assert run.prompt == "The fox"
    *steps, finish = records
    assert isinstance(finish, Finish)
    assert all(isinstance(step, Step) for step in steps)
    assert finish.reason in ("length", "eos")
    text = "".join(record.text for record in records)
    assert text == generate("The fox", "--seed", "7", "-n", "12").stdout.decode()
    for step in steps:
        for choice in step.choices:
            assert choice.token_id in [candidate.token_id for candidate in choice.candidates]


def test_every_json_line_is_strict_json() -> None:
    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    done = generate("--jsonl", "The fox", "-n", "3")
    for line in done.stdout.decode().splitlines():
        json.loads(line, parse_constant=refuse)


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    one, same, other = (generate("The fox", "-n", "30", "--seed", seed).stdout for seed in ("1", "1", "2"))
    assert one == same
    assert one != other


def test_the_text_does_not_depend_on_the_cache_the_chunks_or_the_candidates_shown() -> None:
    plain = generate("The fox and the hen", "-n", "30", "--seed", "3").stdout
    assert generate("The fox and the hen", "-n", "30", "--seed", "3", "--no-cache").stdout == plain
    assert generate("The fox and the hen", "-n", "30", "--seed", "3", "--prefill-chunk", "2").stdout == plain
    assert generate("The fox and the hen", "-n", "30", "--seed", "3", "--top", "0").stdout == plain


def test_the_seed_that_was_chosen_is_told_and_repeats_the_text() -> None:
    first = generate("The fox", "-n", "20", "--stats")
    seed = first.stderr.decode().split("seed ")[1].split()[0]
    assert generate("The fox", "-n", "20", "--seed", seed).stdout == first.stdout


def test_stats_go_to_stderr_and_name_dtype_reason_and_settings() -> None:
    errors = generate("The fox", *GREEDY, "--stats").stderr.decode()
    for word in ("prefill", "decode", "float32", "length", "greedy", "seed", "positions computed"):
        assert word in errors


def test_ctrl_c_keeps_the_text_and_the_finish_and_exits_130() -> None:
    process = subprocess.Popen(
        [SCRIPTS / "generate", "--jsonl", "--no-cache", "The fox", "-n", "900", "--seed", "1", "--top", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == b""
    finish = json.loads((b"".join(lines) + rest).splitlines()[-1])
    assert finish["record"] == "finish"
    assert finish["reason"] == "interrupt"


ENDLESS_LOADING = """
import sys, time
from tokenglass.model import loading
from tokenglass.model.progress import Progress
def load_weights(*_):
    print("loading", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.01)
        yield Progress("loading", 0, 1)
loading.load_weights = load_weights
from tokenglass.cli.__main__ import generate
generate()
"""


def test_a_second_ctrl_c_quits_even_while_the_model_is_loading() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_LOADING, "The fox"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        # A job in the background ignores it, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (a single call of the system)
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"loading\n"
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    text, errors = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert text == b""
    assert b"Traceback" not in errors


def test_a_full_disk_is_an_error_of_one_line() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123  (a device, not a path of ours)
        done = subprocess.run(
            [SCRIPTS / "generate", "The fox", *GREEDY],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env=ENVIRONMENT,
        )
    assert done.returncode == 1
    assert done.stderr == b"generate: stdout: No space left on device\n"


@pytest.mark.parametrize("arguments", [(), ("--top-p", "0.9"), ("--view", "plain")])
def test_an_empty_stdin_is_an_empty_prompt(arguments: tuple[str, ...]) -> None:
    assert_one_line_error(generate(*arguments), 2, "empty")

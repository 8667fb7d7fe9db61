"""What a script relies on: exit codes, what stands on stderr, and where one text ends and the next begins."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
import typer
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, bash, generate, tokenglass

from tokenglass.cli import exit_codes
from tokenglass.cli.app import explain, generate_app

SEEDED = ("--seed", "5")


def test_the_readme_has_the_table_of_exit_codes() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    _, _, after = readme.partition("| exit code | ")
    codes = {int(number) for number in re.findall(r"^\| (\d+) \|", after.partition("\n\n")[0], re.MULTILINE)}
    assert codes == {value for name, value in vars(exit_codes).items() if name.isupper()}


@pytest.mark.parametrize("arguments", [("-m", "/no/model"), ("-m", "none-such")])
@pytest.mark.parametrize("command", ["generate", "score", "tokens"])
def test_a_model_that_is_not_there_is_1_in_every_command(command: str, arguments: tuple[str, ...]) -> None:
    assert tokenglass(command, *arguments, stdin=b"The fox").returncode == exit_codes.ERROR


@pytest.mark.parametrize("command", ["generate", "score", "tokens", "flow"])
def test_no_text_is_2_in_every_command(command: str) -> None:
    assert tokenglass(command, "--nonsense").returncode == exit_codes.USAGE


def test_a_text_that_was_cut_off_before_it_fits_is_3_and_one_line() -> None:
    done = generate("Age:", "--regex", "[0-9]{40}", "-n", "5", *SEEDED)
    assert done.returncode == exit_codes.CUT_OFF
    assert re.fullmatch(rb"\d+", done.stdout), "the text is kept"
    assert done.stderr == b"the text ended before fitting --regex; try a larger -n than 5\n"


@pytest.mark.parametrize(
    ("regex", "n", "options"),
    [("[0-9]+", "5", ()), ("[0-9]{3}", "9", ()), ("[0-9]{3}", "9", ("--ignore-eos",))],
    ids=["could go on", "came to its end", "came to its end, and none may be drawn"],
)
def test_a_text_that_fits_where_it_ends_is_0(regex: str, n: str, options: tuple[str, ...]) -> None:
    done = generate("Age:", "--regex", regex, "-n", n, *options, *SEEDED)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(regex.encode(), done.stdout)
    assert done.stderr == b""


def test_of_several_texts_those_that_were_cut_off_are_counted() -> None:
    done = generate("Age:", "--regex", "[0-9]{40}", "-n", "5", "--num-samples", "2", *SEEDED, "--quiet")
    assert done.returncode == exit_codes.CUT_OFF
    assert done.stderr.startswith(b"2 texts ended before fitting --regex")


def test_a_chosen_seed_is_one_line_that_repeats_the_text_and_quiet_hides_it() -> None:
    first = generate("The fox", "-n", "12")
    match = re.fullmatch(rb"seed (\d+)\n", first.stderr)
    assert match is not None
    again = generate("The fox", "-n", "12", "--seed", match[1].decode())
    assert (again.stdout, again.stderr) == (first.stdout, b"")
    assert generate("The fox", "-n", "2", "--quiet").stderr == b""
    assert generate("The fox", "-n", "2", "-t", "0").stderr == b"", "greedy text depends on no seed"


def test_stats_stand_below_a_text_whose_line_has_not_ended() -> None:
    both = bash("generate 'The fox' -n 3 --seed 5 --stats 2>&1 | cat").stdout
    text = generate("The fox", "-n", "3", *SEEDED).stdout
    assert not text.endswith(b"\n")
    assert both.startswith(text + b"\nprefill ")
    apart = generate("The fox", "-n", "3", *SEEDED, "--stats")
    assert apart.stderr.startswith(b"prefill "), "no empty line where the text goes elsewhere"
    assert apart.stdout == text


def test_sigterm_keeps_the_text_and_is_143() -> None:
    command = [SCRIPTS / "generate", "--jsonl", "--no-cache", "The fox", "-n", "900", *SEEDED]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == exit_codes.TERMINATED
    assert errors == b""
    assert b'"reason":"interrupt"' in (b"".join(lines) + rest).splitlines()[-1]


def test_a_closed_stdout_is_an_error_of_one_line() -> None:
    done = bash("generate 'The fox' -n 3 --seed 5 >&-")
    assert_one_line_error(done, exit_codes.ERROR, "stdout is closed")


def test_an_empty_prompt_runs_where_the_model_has_a_start_token() -> None:
    done = generate("", "-n", "4", *SEEDED)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert_one_line_error(generate("-", stdin=b""), exit_codes.USAGE, "empty")


def test_several_texts_are_apart_as_is_asked_for() -> None:
    several = ("The fox", "-n", "6", "--num-samples", "3", *SEEDED, "--quiet")
    texts = generate(*several, "--separator", "<|>").stdout.split(b"<|>")
    assert len(texts) == 3
    assert b"\n".join(texts) == generate(*several).stdout
    assert generate(*several, "-0").stdout == b"".join(text + b"\0" for text in texts)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--passes", "2"), ("--passes has no effect", "--mode parallel")),
        (("--length-penalty", "0.5"), ("--length-penalty", "--beams")),
        (("--early-stopping",), ("--early-stopping", "--beams")),
        (("--draft-length", "4"), ("--draft-length", "--mode speculative")),
        (("--block-size", "4", "--mode", "speculative"), ("--block-size", "--mode parallel or jacobi")),
        (("--panel", "slim", "--view", "plain"), ("--panel", "live")),
        (("--pause", "--jsonl"), ("--pause", "live")),
        (("--echo", "--jsonl"), ("--echo", "jsonl")),
        (("--separator", "x"), ("--separator", "--num-samples")),
        (("-0",), ("--null", "--num-samples")),
    ],
    ids=lambda value: value[0],
)
def test_an_option_without_effect_is_refused_by_name(
    arguments: tuple[str, ...], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["generate", "x", *arguments])
    with pytest.raises(typer.TyperException) as caught:
        generate_app()(["x", *arguments], standalone_mode=False)
    code, message = explain(caught.value)
    assert code == exit_codes.USAGE
    assert all(word in message for word in words), message

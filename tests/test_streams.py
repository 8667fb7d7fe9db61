"""Streams that are closed, full or in another encoding, and files that are none: one line, never a traceback."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, bash, generate, script, tokenglass

from tokenglass.model.checkpoint.store import bundled_folder

pytestmark = pytest.mark.slow  # each starts the program
GREEDY = ("-t", "0", "-n", "4")
LOCALES = {
    "C": {"LANG": "C", "LC_ALL": "C"},
    "POSIX without UTF-8 mode": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii, strict": {"PYTHONIOENCODING": "ascii:strict"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "no locale": {"LANG": "xx_YY.nothing"},
}
PROMPT = "Füße 日本語 👩‍👩‍👧 é"


def run(*arguments: str | bytes, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return script("tokenglass", *arguments, stdin=stdin, **environment)  # type: ignore[arg-type]


def test_a_table_in_a_pipe_is_as_wide_as_its_content(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.symlink_to(bundled_folder())
    for color in ("never", "always"):
        done = run("inspect", str(folder), "--color", color)
        assert str(folder) in done.stdout.decode(), done.stderr


@pytest.mark.parametrize("locale", LOCALES.values(), ids=LOCALES)
def test_stdout_is_utf8_whatever_the_locale(locale: dict[str, str]) -> None:
    done = run("generate", "--echo", *GREEDY, stdin=PROMPT.encode(), **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith(PROMPT)
    done = run("tokens", "--json", PROMPT, **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    pieces = b"".join(bytes(token["bytes"]) for token in json.loads(done.stdout.decode()))
    assert pieces.decode().endswith(PROMPT)


@pytest.mark.parametrize("locale", [LOCALES["POSIX without UTF-8 mode"], LOCALES["cp1252"]], ids=["POSIX", "cp1252"])
def test_names_that_are_not_utf8_are_shown_and_stay_json(locale: dict[str, str], saved_checkpoint: Path) -> None:
    folder = os.fsencode(saved_checkpoint.parent) + b"/caf\xe9\xff"
    link = Path(os.fsdecode(folder))
    if not link.is_symlink():
        link.symlink_to(saved_checkpoint)
    for command in (("inspect", folder), ("inspect", folder, "--json")):
        done = run(*command, **locale)
        assert done.returncode == 0, done.stderr
        assert b"\x1b" not in done.stdout
        done.stdout.decode()
        if "--json" in command:
            assert os.fsencode(json.loads(done.stdout)["model"]) == folder
    done = run("generate", "-m", folder, "--jsonl", "x", "-n", "2", **locale)  # safetensors opens UTF-8 names only
    assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, done.stderr
    missing = run("generate", "-m", folder + b"-none", "x", **locale)
    assert_one_line_error(missing, 1, "caf")


@pytest.mark.parametrize(
    "option", ["--stop", "--ban", "--regex", "--choice", "--logit-bias", "--negative", "--samplers"]
)
def test_an_argument_that_is_not_utf8_is_a_usage_error_or_harmless(option: str) -> None:
    more = ("--guidance", "2") if option == "--negative" else ()
    done = run("generate", "x", *GREEDY, option, b"a\xff=1", *more)
    assert done.returncode in (0, 2), done.stderr
    assert b"Traceback" not in done.stderr
    assert b"internal error" not in done.stderr
    assert len(done.stderr.splitlines()) == (done.returncode != 0)


@pytest.mark.parametrize(
    "command",
    [
        "generate x -n 2",
        "generate x -n 2 --jsonl",
        "tokenglass inspect",
        "tokenglass inspect --json",
        "tokenglass tokens x",
        "tokenglass tokens x --json",
        "tokenglass models",
        "tokenglass --help",
        "tokenglass --version",
        "generate --help",
    ],
)
@pytest.mark.parametrize("where", [">/dev/full", ">&-", ">&- 2>&-"])
def test_output_that_has_nowhere_to_go_is_an_error_of_one_line(command: str, where: str) -> None:
    done = bash(f"{command} {where}")
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == ("2>" not in where), done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
def test_text_does_not_need_stderr(where: str) -> None:
    done = bash(f"generate x -n 2 -t 0 --stats {where}")
    assert (done.returncode, done.stdout) == (0, bash("generate x -n 2 -t 0").stdout)


def test_a_closed_stdin_is_no_prompt() -> None:
    assert_one_line_error(bash("generate <&-"), 2, "no prompt")
    assert_one_line_error(bash("generate - <&-"), 2, "stdin is closed")


def test_no_file_that_is_opened_later_becomes_stdout(tmp_path: Path) -> None:
    """Where descriptor 1 is free, the next file would have it, and be written to by any print of a library."""
    code = "import os; from tokenglass.cli.say import guard_streams; guard_streams(); os._exit(open('x', 'w').fileno())"
    program = f"cd {tmp_path} && {SCRIPTS / 'python'} -c {shlex.quote(code)} <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", program], check=False, env={**ENVIRONMENT, "PYTHONPATH": str(Path.cwd())})
    assert done.returncode > 2


@pytest.mark.parametrize("option", ["--prompt-file", "--grammar", "--json-schema"])
@pytest.mark.parametrize("kind", ["fifo", "/dev/zero", "/dev/stdin", "folder", "missing", "unreadable", "nul"])
def test_only_a_regular_file_is_read(option: str, kind: str, tmp_path: Path) -> None:
    path = {"folder": str(tmp_path), "nul": "a\nb"}.get(kind, kind if kind.startswith("/") else str(tmp_path / kind))
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "unreadable":
        Path(path).write_text("x")
        Path(path).chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user reads everything")
    prompt = () if option == "--prompt-file" else ("x",)
    assert_one_line_error(generate(option, path, *prompt, *GREEDY, stdin=b"x"), 2, "file")


def test_a_prompt_beyond_all_contexts_is_refused_before_it_is_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as opened:
        opened.truncate(2**40)
    assert_one_line_error(generate("--prompt-file", str(huge)), 2, "larger than 64 MiB")
    assert_one_line_error(bash(f"generate < {huge}"), 2, "larger than 64 MiB")


def test_the_text_that_a_loss_is_measured_on_may_be_long(tmp_path: Path) -> None:
    done = tokenglass("quantize", "tale", str(tmp_path / "made"), "--text", "/dev/zero")
    assert_one_line_error(done, 1, "/dev/zero", "not a regular file")

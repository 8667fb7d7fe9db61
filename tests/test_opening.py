"""What stands on a terminal before a view begins: at once, in grey, and gone afterwards, on real pseudo-terminals."""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
import shell
from terminal import PATIENCE, Terminal, assert_restored, wait_for_copy

PYTHON = shlex.quote(sys.executable)
PROMPT = "Once upon a time"
COMMANDS = [
    f"generate -m nowhere '{PROMPT}'",
    f"generate -m nowhere '{PROMPT}' --view plain",
    f"generate -m nowhere '{PROMPT}' --num-samples 2",
    f"pick -m nowhere '{PROMPT}'",
    f"flow -m nowhere '{PROMPT}'",
    f"choose -m nowhere --prompt '{PROMPT}' a b",
    f"score -m nowhere {shlex.quote(__file__)}",
    f"compare -m nowhere '{PROMPT}'",
    "chat -m nowhere",
    "check nowhere",
    f"diff -m nowhere {shlex.quote(__file__)} --against-quantize int4",
    f"quantize nowhere {shlex.quote(str(Path(tempfile.gettempdir()) / 'never made'))}",
    "bench nowhere",
]
WAITING = """
import logging, sys, time
from tokenglass.cli.say import guard_streams, say
from tokenglass.cli.terminal.opening import opening
guard_streams()
with opening({prompt!r}) as first:
    {body}
print("the view begins")
"""
WAIT = "first.show('waiting'); time.sleep({seconds})"
FIRST_IMPORTS = """
import sys
from tokenglass.cli.terminal import first_screen
def show(self, doing):
    open({file!r}, "w").write(" ".join(sys.modules))
    raise SystemExit(7)
first_screen.FirstScreen.show = show
sys.argv = ["tokenglass", *{arguments!r}]
from tokenglass.cli.__main__ import tokenglass
tokenglass()
"""


def waiting(body: str, prompt: str = PROMPT) -> str:
    """A shell's line that shows an opening while `body` runs."""
    return f"{PYTHON} -c {shlex.quote(WAITING.format(prompt=prompt, body=body))}"


@pytest.mark.parametrize("arguments", COMMANDS)
def test_every_command_says_at_once_what_it_does_and_an_error_leaves_nothing_but_its_line(arguments: str) -> None:
    terminal = Terminal(program=f"exec tokenglass {arguments}")
    first = next(terminal.frames())
    assert first[-1] == " starting"
    assert (first[0] == PROMPT) is (PROMPT in arguments and "compare" not in arguments)
    assert terminal.finish() != 0
    assert terminal.lines()[0].startswith("tokenglass: no model 'nowhere'")
    assert len(terminal.lines()) <= 3
    assert_restored(terminal)


def test_the_prompt_stands_where_the_view_will_write_it_and_is_there_once() -> None:
    terminal = Terminal(program=f"exec generate '{PROMPT}' -n 3 --seed 1")
    frames = list(terminal.frames())
    doing = [frame[1] for frame in frames if len(frame) == 2]
    assert [line.split()[0] for line in dict.fromkeys(doing)][:2] == ["starting", "loading"]
    assert {frame[0][: len(PROMPT)] for frame in frames} == {PROMPT}
    assert all(frame for frame in frames), "never an empty screen"
    assert terminal.finish() == 0
    assert terminal.text().count(PROMPT) == 1
    assert "loading" not in terminal.text()
    assert_restored(terminal)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_it_is_shown_before_anything_that_takes_long_is_imported(arguments: str, tmp_path: Path) -> None:
    file = tmp_path / "modules"
    code = FIRST_IMPORTS.format(file=str(file), arguments=shlex.split(arguments))
    terminal = Terminal(program=f"exec {PYTHON} -c {shlex.quote(code)}")
    assert terminal.finish() == 7
    heavy = {"torch", "numpy", "tokenizers", "pydantic", "llguidance", "jinja2", "ctypes"}
    assert not heavy & set(file.read_text().split())


def test_a_terminal_that_cannot_move_its_cursor_gets_lines_on_stderr_unless_the_run_is_quiet() -> None:
    program = f"exec generate '{PROMPT}' -n 3 --seed 1"
    for option, lines in (("", ["starting", "loading"]), (" --quiet", [])):
        terminal = Terminal(program=program + option, TERM="dumb")
        assert terminal.finish() == 0
        first, text = terminal.output.replace("\r", "").split(PROMPT)
        assert [line.split()[0] for line in first.splitlines()] == lines
        assert text.strip()
        assert "\x1b" not in terminal.output


def test_a_pipe_gets_nothing_of_it() -> None:
    for stream in ("| cat", "2>/dev/null"):
        terminal = Terminal(program=f"generate '{PROMPT}' -n 2 --seed 1 {stream}")
        assert terminal.finish() == 0
        assert "starting" not in terminal.output
    assert b"starting" not in shell.generate(PROMPT, "-n", "2").stderr


def test_keys_typed_meanwhile_leave_no_mark_and_wait_for_who_reads_next() -> None:
    terminal = Terminal(program=f'{waiting(WAIT.format(seconds=1))}; read line; echo "read: $line"')
    terminal.wait_for_words("waiting")
    assert not terminal.local_flags & termios.ECHO
    terminal.child.send("typed\n")
    terminal.wait_for_words("read: typed")
    assert terminal.finish() == 0
    assert terminal.lines() == ["the view begins", "read: typed"]
    assert_restored(terminal)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_an_empty_screen(number: int) -> None:
    terminal = Terminal(program=f"exec {waiting(WAIT.format(seconds=PATIENCE))}")
    terminal.wait_for_words("waiting")
    terminal.child.kill(number)
    assert terminal.finish() == 128 + number
    assert PROMPT not in terminal.text()
    assert_restored(terminal)


def test_messages_stand_above_it_and_stay_and_what_is_logged_is_what_is_done() -> None:
    body = "say('note: one'); logging.getLogger('tokenglass.model.x').warning('compiling'); say('note: two')"
    terminal = Terminal(program=f"exec {waiting(body)}")
    frames = list(terminal.frames())
    assert terminal.finish() == 0
    assert frames == [
        [PROMPT, " starting"],
        ["note: one", PROMPT, " starting"],
        ["note: one", PROMPT, " compiling"],
        ["note: one", "note: two", PROMPT, " compiling"],
    ]
    assert terminal.lines() == ["note: one", "note: two", "the view begins"]


def test_of_a_long_prompt_it_shows_what_fits_and_the_scrollback_gets_nothing() -> None:
    long = "a\tword " * 300
    terminal = Terminal(program=f"exec {waiting(WAIT.format(seconds=0), long)}", lines=10)
    frames = list(terminal.frames())
    assert terminal.finish() == 0
    assert len(frames[0]) == 9
    assert not terminal.screen.history.top
    assert terminal.lines() == ["the view begins"]


def test_a_resize_draws_it_anew() -> None:
    terminal = Terminal(program=f"exec {waiting(WAIT.format(seconds=1), 'x' * 100)}", columns=60)
    terminal.wait_for_words("waiting")
    terminal.resize(120, 24)
    terminal.wait_for(lambda: terminal.lines()[:2] == ["x" * 100, " waiting"])
    assert terminal.finish() == 0
    assert terminal.lines() == ["the view begins"]


def test_tmux_keeps_nothing_of_it_in_its_history(tmux: Callable[..., str]) -> None:
    program = f"generate '{PROMPT}' -n 3 --seed 1 --panel off; echo done; sleep {PATIENCE}"
    tmux("new-session", "-d", "-s", "run", "-x", "60", "-y", "10", program)
    copied = wait_for_copy(tmux, lambda copied: "done" in copied)
    assert copied.count(PROMPT) == 1
    assert copied.startswith(PROMPT)
    assert len(copied.splitlines()) == 2

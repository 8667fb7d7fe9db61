"""The live view on real pseudo-terminals: what a user sees, scrolls back to and copies."""

from __future__ import annotations

import signal
import termios
import time
from pathlib import Path

import pytest
import scripted_run
from terminal import SIZES, Terminal, assert_restored, command, hold_at, is_held
from wrapped_text import wrap

TEXT = scripted_run.PROMPT + "".join(scripted_run.STORY)
LONG = scripted_run.PROMPT + "".join(scripted_run.STORY) * 6


@pytest.mark.parametrize(("columns", "lines"), SIZES)
@pytest.mark.parametrize("panel", ["full", "slim", "off"])
def test_text_is_in_the_scrollback_once_and_the_last_panel_whole(columns: int, lines: int, panel: str) -> None:
    terminal = Terminal(f"--repeat 6 --delay 0.001 --panel {panel}", columns, lines)

    assert terminal.finish() == 0

    expected = wrap(LONG, columns)
    rows = terminal.lines()
    assert rows[: len(expected)] == expected
    panel_lines = rows[len(expected) :]
    assert panel_lines[-1] == "reason eos"
    if panel == "off":
        assert len(panel_lines) == 1
    else:
        assert sum("token 318" in line for line in rows) == 1
        assert "eos: the model" in panel_lines[-2]
        assert all(len(line) <= columns for line in panel_lines)
        assert len(panel_lines) <= lines - 2
    assert_restored(terminal)


@pytest.mark.parametrize("panel", ["full", "slim"])
def test_ctrl_c_ends_softly_with_text_panel_and_terminal_whole(panel: str) -> None:
    terminal = Terminal(f"--repeat 100 --delay 0.01 --panel {panel}")
    terminal.wait_for_token(9)
    assert not terminal.local_flags & termios.ECHO

    terminal.child.sendintr()

    assert terminal.finish() == 0
    assert terminal.lines()[-1] == "reason interrupt"
    assert "stopped by hand" in terminal.lines()[-2]
    assert "^C" not in terminal.output
    assert_whole(terminal)


def test_second_ctrl_c_quits_with_the_text_kept() -> None:
    program = f"trap 'stty -a | grep -o .echo' INT EXIT; {command('--repeat 9 --delay 2')}"
    terminal = Terminal(program=program)
    terminal.wait_for_token(2)

    terminal.child.sendintr()
    terminal.child.sendintr()
    terminal.finish()

    assert wrap(scripted_run.PROMPT + ", there", 80)[0] in terminal.lines()[0]
    assert "token 2" not in terminal.text()
    assert_restored(terminal)


def test_an_error_leaves_the_text_once_and_no_panel() -> None:
    terminal = Terminal("--fail-after 20 --delay 0.002")

    assert terminal.finish() == 1

    text = scripted_run.PROMPT + "".join(scripted_run.STORY[:20])
    assert terminal.lines() == [*wrap(text, 80), "scripted: the engine broke"]
    assert_restored(terminal)


def test_sigterm_ends_by_convention_with_the_text_kept_and_the_terminal_restored() -> None:
    terminal = Terminal("--repeat 100 --delay 0.01")
    terminal.wait_for_token(30)
    before = terminal.local_flags

    terminal.child.kill(signal.SIGTERM)

    assert terminal.finish() == 128 + signal.SIGTERM
    assert not before & termios.ECHO
    assert "token" not in terminal.text()
    assert_text_is_a_beginning(terminal.lines(), 80)
    assert_restored(terminal)


def test_ctrl_z_gives_the_terminal_back_and_fg_goes_on() -> None:
    terminal = Terminal(program="exec bash --norc --noprofile -i")
    terminal.child.sendline(command("--repeat 3 --delay 0.02"))
    terminal.wait_for_token(9)

    terminal.child.send("\x1a")
    terminal.wait_for_words("Stopped")
    stopped = terminal.text()
    assert_restored(terminal)
    terminal.child.sendline("echo back && fg")
    terminal.wait_for_words("reason eos")
    terminal.child.sendline("exit")
    terminal.finish()

    assert "token" not in stopped
    parts = terminal.text().partition("Stopped")
    assert "^Z" not in parts[0]
    assert parts[2].count("token 159 ") == 1
    first, second = (part.replace("\n", "").replace(" ", "") for part in (parts[0], parts[2]))
    whole = (scripted_run.PROMPT + "".join(scripted_run.STORY) * 3).replace("\n", "").replace(" ", "")
    cut = next(k for k in range(len(whole), 0, -1) if whole[:k] in first)
    assert whole[cut:] in second
    assert_restored(terminal)


def test_resizing_between_frames_leaves_one_panel_and_no_garbage(tmp_path: Path) -> None:
    """Growing only: pyte drops the top lines of a screen that shrinks. tmux, below, shrinks too."""
    held = tmp_path / "held"
    terminal = Terminal(f"--repeat 8 --delay 0.01 {hold_at((20, 60, 100), held)}", 60, 24)
    for token, (columns, lines) in ((20, (100, 30)), (60, (120, 40)), (100, (130, 50))):
        terminal.wait_for(lambda token=token: is_held(held, token))
        terminal.drain()
        terminal.resize(columns, lines)

    assert terminal.finish() == 0

    assert terminal.text().count("chosen ") == 1
    assert terminal.text().count("speed ") == 1
    text = (scripted_run.PROMPT + "".join(scripted_run.STORY) * 8).replace("\n", "").replace(" ", "")
    assert text in terminal.text().replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("columns", "lines", "environment"),
    [
        (1, 24, {}),
        (80, 3, {}),
        (19, 24, {}),
        (80, 24, {"TERM": "dumb"}),
        (80, 24, {"TERM": ""}),
        (80, 24, {"TERM": "dumb", "NO_COLOR": "1", "FORCE_COLOR": "1"}),
    ],
)
def test_terminals_that_cannot_have_a_panel_get_plain_text(
    columns: int, lines: int, environment: dict[str, str]
) -> None:
    terminal = Terminal("", columns, lines, **environment)

    assert terminal.finish() == 0

    assert "chosen" not in terminal.output
    assert "\x1b[J" not in terminal.output
    assert without_blanks(TEXT) in without_blanks(terminal.output.replace("\x1b[2m", "").replace("\x1b[0m", ""))


@pytest.mark.parametrize(
    "program",
    ["{} 2>&-", "{} 2>/dev/null", "env -u TERM {}"],
    ids=["closed stderr", "stderr elsewhere", "TERM unset"],
)
def test_without_two_terminals_there_is_no_panel_and_no_crash(program: str) -> None:
    terminal = Terminal(program=program.format(command("")))

    terminal.finish()

    assert "chosen" not in terminal.output
    assert "Traceback" not in terminal.output
    assert without_blanks(TEXT) in without_blanks(terminal.output.replace("\x1b[2m", "").replace("\x1b[0m", ""))


@pytest.mark.parametrize(
    ("environment", "colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"FORCE_COLOR": "1"}, True), ({"TERM": "vt100"}, True)],
)
def test_colour_obeys_no_color_and_force_color(environment: dict[str, str], colored: bool) -> None:
    terminal = Terminal("--color-by probability", **environment)

    assert terminal.finish() == 0

    assert ("\x1b[32m" in terminal.output or "\x1b[36m" in terminal.output) is colored
    assert_whole(terminal, TEXT)


def test_an_ascii_locale_gets_ascii_only() -> None:
    terminal = Terminal("", LC_ALL="C")

    assert terminal.finish() == 0

    assert terminal.output.isascii()
    assert '" woods"' in terminal.text()
    assert_whole(terminal, TEXT)


def test_pause_goes_a_step_per_key_shows_details_runs_on_and_stops() -> None:
    terminal = Terminal("--speed 0 --repeat 2 --delay 0.005")
    terminal.wait_for_words("token 1 of")
    terminal.wait_for_words("keys")
    time.sleep(0.3)
    assert not terminal.local_flags & termios.ICANON
    terminal.child.send(" ")
    terminal.wait_for_words("token 2 of")
    terminal.child.send("j")
    terminal.wait_for_words("token id 300")
    terminal.child.send("\x1b[B")
    terminal.wait_for_words("token id 301")
    terminal.child.send("k")
    terminal.wait_for_words("token id 300")
    terminal.child.send("f")
    terminal.wait_for_token(40)
    assert terminal.finish() == 0
    assert "keys" not in terminal.text()
    assert_restored(terminal)


def test_q_while_paused_ends_as_an_interrupt_with_stdin_elsewhere() -> None:
    terminal = Terminal(program=f"echo piped | {command('--speed 0')}")
    terminal.wait_for_words("keys")

    terminal.child.send("q")

    assert terminal.finish() == 0
    assert terminal.lines()[-1] == "reason interrupt"
    assert_restored(terminal)


def assert_whole(terminal: Terminal, text: str | None = None) -> None:
    """The text, then one panel, then the script's own line; the terminal as it was."""
    lines = terminal.lines()
    assert terminal.text().count("token ") >= 1
    assert lines[-1].startswith("reason ")
    if text is not None:
        expected = wrap(text, terminal.screen.columns)
        assert lines[: len(expected)] == expected
    else:
        top = next(k for k, line in enumerate(lines) if "token " in line)
        assert_text_is_a_beginning(lines[:top], terminal.screen.columns)
    assert_restored(terminal)


def assert_text_is_a_beginning(lines: list[str], columns: int) -> None:
    text = "\n".join(lines)
    assert "\n".join(wrap(scripted_run.PROMPT + "".join(scripted_run.STORY) * 100, columns)).startswith(text)
    assert len(text) > 50


def without_blanks(text: str) -> str:
    return "".join(text.split())

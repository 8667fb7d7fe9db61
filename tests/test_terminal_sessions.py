"""The live view on real pseudo-terminals: what a user sees, scrolls back to and copies."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pexpect
import pyte
import pytest
import scripted_run
from rich.cells import get_character_cell_size

SCRIPT = Path(scripted_run.__file__)
TEXT = scripted_run.PROMPT + "".join(scripted_run.STORY)
LONG = scripted_run.PROMPT + "".join(scripted_run.STORY) * 6
SIZES = [(40, 24), (80, 24), (120, 40), (200, 50), (80, 10)]
PATIENCE = 60  # seconds; a busy machine is slow, never wrong
LAST_ECHO = 3  # index of the local flags in termios attributes


class Terminal:
    """A program on a pseudo-terminal, and the screen with its scrollback as pyte understands them."""

    def __init__(self, arguments: str = "", columns: int = 80, lines: int = 24, program: str = "", **environment: str):
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "LC_ALL")}
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=0.5)
        self.stream = pyte.Stream(self.screen)
        self.output = ""
        self.child = pexpect.spawn(
            "bash",
            ["--norc", "-c", program or f"exec {command(arguments)}"],
            dimensions=(lines, columns),
            encoding="utf-8",
            timeout=PATIENCE,
            env={**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PS1": "", **environment},
            # What a shell without job control runs in its background is deaf to Ctrl-C, and so is all that it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def read(self) -> bool:
        """Take what has come; whether more may come."""
        try:
            part = self.child.read_nonblocking(65_536, timeout=0.1)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.output += part
        self.stream.feed(part)
        return True

    def drain(self) -> None:
        """Take all there is until nothing more comes."""
        before = None
        while before != len(self.output):
            before = len(self.output)
            self.read()

    def wait_for(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, self.shown()
            assert self.read(), f"ended too early:\n{self.shown()}"

    def wait_for_words(self, words: str) -> None:
        self.wait_for(lambda: words in self.shown())

    def wait_for_token(self, number: int) -> None:
        self.wait_for(lambda: newest_token(self.shown()) >= number)

    def finish(self) -> int:
        """Read to the end; the exit status, 128 and the signal's number for one that a signal ended."""
        end = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < end, self.shown()
        self.child.close()
        return self.child.exitstatus if self.child.exitstatus is not None else 128 + self.child.signalstatus

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self.child.setwinsize(lines, columns)

    def lines(self) -> list[str]:
        """Scrollback and screen, without blanks at line ends and empty lines at the end."""
        columns = self.screen.columns
        past = ["".join(row[x].data for x in range(columns)) for row in self.screen.history.top]
        lines = [line.rstrip() for line in [*past, *self.screen.display]]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def shown(self) -> str:
        return "\n".join(self.lines())

    @property
    def local_flags(self) -> int:
        flags = termios.tcgetattr(self.child.child_fd)[LAST_ECHO]
        assert isinstance(flags, int)
        return flags


def command(arguments: str) -> str:
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))} {arguments}"


def hold_at(tokens: Sequence[int], held: Path) -> str:
    """Arguments that make the script wait at these tokens until it is resized."""
    return f"--hold {' '.join(map(str, tokens))} --hold-file {shlex.quote(str(held))}"


def is_held(held: Path, token: int) -> bool:
    return held.exists() and held.read_text(encoding="utf-8") == str(token)


def newest_token(shown: str) -> int:
    """The number that the panel shows, or 0."""
    return max((int(number) for number in re.findall(r"token (\d+) ", shown)), default=0)


def wrapped(text: str, columns: int) -> list[str]:
    """The lines that a terminal makes of a text."""
    lines = []
    for paragraph in text.split("\n"):
        line, used = "", 0
        for char in paragraph:
            cells = get_character_cell_size(char)
            if used + cells > columns:
                lines.append(line.rstrip())
                line, used = "", 0
            line, used = line + char, used + cells
        lines.append(line.rstrip())
    return lines


def assert_restored(terminal: Terminal) -> None:
    """Cursor shown, lines wrap, no attribute or synchronized frame left open, echo on."""
    for on, off in (("\x1b[?25h", "\x1b[?25l"), ("\x1b[?7h", "\x1b[?7l"), ("\x1b[?2026l", "\x1b[?2026h")):
        assert terminal.output.rfind(on) >= terminal.output.rfind(off)
    assert pyte.modes.DECTCEM in terminal.screen.mode
    assert pyte.modes.DECAWM in terminal.screen.mode
    assert not terminal.screen.cursor.attrs.bold
    assert terminal.screen.cursor.attrs.fg == "default"


@pytest.mark.parametrize(("columns", "lines"), SIZES)
@pytest.mark.parametrize("panel", ["full", "slim", "off"])
def test_text_is_in_the_scrollback_once_and_the_last_panel_whole(columns: int, lines: int, panel: str) -> None:
    terminal = Terminal(f"--repeat 6 --delay 0.001 --panel {panel}", columns, lines)

    assert terminal.finish() == 0

    expected = wrapped(LONG, columns)
    told = terminal.lines()
    assert told[: len(expected)] == expected
    panel_lines = told[len(expected) :]
    assert panel_lines[-1] == "reason eos"
    if panel == "off":
        assert len(panel_lines) == 1
    else:
        assert sum("token 318" in line for line in told) == 1
        assert "(eos)" in panel_lines[-2]
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

    assert wrapped(scripted_run.PROMPT + ", there", 80)[0] in terminal.lines()[0]
    assert "token 2" not in terminal.shown()
    assert_restored(terminal)


def test_an_error_leaves_the_text_once_and_no_panel() -> None:
    terminal = Terminal("--fail-after 20 --delay 0.002")

    assert terminal.finish() == 1

    text = scripted_run.PROMPT + "".join(scripted_run.STORY[:20])
    assert terminal.lines() == [*wrapped(text, 80), "scripted: the engine broke"]
    assert_restored(terminal)


def test_sigterm_ends_by_convention_with_the_text_kept_and_the_terminal_restored() -> None:
    terminal = Terminal("--repeat 100 --delay 0.01")
    terminal.wait_for_token(30)
    before = terminal.local_flags

    terminal.child.kill(signal.SIGTERM)

    assert terminal.finish() == 128 + signal.SIGTERM
    assert not before & termios.ECHO
    assert "token" not in terminal.shown()
    assert_text_is_a_beginning(terminal.lines(), 80)
    assert_restored(terminal)


def test_ctrl_z_gives_the_terminal_back_and_fg_goes_on() -> None:
    terminal = Terminal(program="exec bash --norc --noprofile -i")
    terminal.child.sendline(command("--repeat 3 --delay 0.02"))
    terminal.wait_for_token(9)

    terminal.child.send("\x1a")
    terminal.wait_for_words("Stopped")
    stopped = terminal.shown()
    assert_restored(terminal)
    terminal.child.sendline("echo back && fg")
    terminal.wait_for_words("reason eos")
    terminal.child.sendline("exit")
    terminal.finish()

    assert "token" not in stopped
    parts = terminal.shown().partition("Stopped")
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

    assert terminal.shown().count("chosen ") == 1
    assert terminal.shown().count("speed ") == 1
    text = (scripted_run.PROMPT + "".join(scripted_run.STORY) * 8).replace("\n", "").replace(" ", "")
    assert text in terminal.shown().replace("\n", "").replace(" ", "")


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
    assert '" woods"' in terminal.shown()
    assert_whole(terminal, TEXT)


def test_pause_goes_a_step_per_key_shows_details_runs_on_and_stops() -> None:
    terminal = Terminal("--pause --repeat 2 --delay 0.005")
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
    assert "keys" not in terminal.shown()
    assert_restored(terminal)


def test_q_while_paused_ends_as_an_interrupt_with_stdin_elsewhere() -> None:
    terminal = Terminal(program=f"echo piped | {command('--pause')}")
    terminal.wait_for_words("keys")

    terminal.child.send("q")

    assert terminal.finish() == 0
    assert terminal.lines()[-1] == "reason interrupt"
    assert_restored(terminal)


@pytest.fixture
def tmux() -> Iterator[Callable[..., str]]:
    """Run tmux on a server of its own."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed; pyte alone is asked")
    name = f"tokenglass-{uuid.uuid4().hex[:8]}"

    def run(*arguments: str) -> str:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["tmux", "-L", name, "-f", "/dev/null", *arguments], capture_output=True, check=True, env=environment
        )
        return done.stdout.decode()

    yield run
    subprocess.run(["tmux", "-L", name, "kill-server"], capture_output=True, check=False)


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_what_tmux_copies_has_no_line_break_that_the_model_did_not_write(
    tmux: Callable[..., str], columns: int, lines: int
) -> None:
    start_in_tmux(tmux, "--repeat 6 --delay 0.003", columns, lines)

    copied = wait_for_copy(tmux, lambda copied: "reason eos" in copied)

    assert copied.startswith(LONG.rstrip() + "\n")
    assert copied.count("(eos)") == 1


@pytest.mark.parametrize("color_by", ["none", "probability"])
def test_wide_characters_that_meet_the_right_edge_are_copied_whole(tmux: Callable[..., str], color_by: str) -> None:
    pieces = ["日本", "x", "語の", "👍", "é", "yz", "한국어"]
    arguments = f"--repeat 20 --delay 0.06 --color-by {color_by} --pieces {shlex.quote(repr(pieces))}"
    start_in_tmux(tmux, arguments, 41, 24)

    copied = wait_for_copy(tmux, lambda copied: "reason eos" in copied)

    assert copied.startswith(scripted_run.PROMPT + "".join(pieces) * 20 + "\n")


def test_resizing_in_tmux_which_wraps_anew_keeps_the_text_and_one_panel(
    tmux: Callable[..., str], tmp_path: Path
) -> None:
    resize_in_turn(tmux, tmp_path / "held", (100, 24), (97, 12), (94, 30), (120, 24))

    copied = wait_for_copy(tmux, lambda copied: "reason eos" in copied)

    assert copied.startswith(scripted_run.PROMPT + "".join(scripted_run.STORY) * 8 + "\n")
    assert copied.count("chosen ") == 1


def test_halving_a_tmux_pane_goes_on_with_the_text_and_a_whole_panel(tmux: Callable[..., str], tmp_path: Path) -> None:
    """tmux may push the place where the text ends into its history, and old panel lines with it: they stay there."""
    resize_in_turn(tmux, tmp_path / "held", (40, 24), (80, 24), (31, 24))

    copied = wait_for_copy(tmux, lambda copied: "reason eos" in copied)

    paragraph = "".join(scripted_run.STORY).split("\n\n")[1]
    assert paragraph + "".join(scripted_run.STORY).split("\n\n")[0] + "\n" in copied
    assert copied.count("(eos)") == 1
    panel = copied[copied.rindex("─ token ") :]
    assert [label for label in ("chosen", "cache", "speed", "end") if panel.count(f" {label} ") != 1] == []


def resize_in_turn(tmux: Callable[..., str], held: Path, *sizes: tuple[int, int]) -> None:
    """A run that is resized between two frames, one size after the other, with 30 tokens in between."""
    tokens = [20 + 30 * turn for turn in range(len(sizes))]
    start_in_tmux(tmux, f"--repeat 8 --delay 0.01 {hold_at(tokens, held)}", 80, 24)
    for token, (columns, lines) in zip(tokens, sizes, strict=True):
        wait_for_copy(tmux, lambda _, token=token: is_held(held, token))
        time.sleep(0.2)  # tmux takes what was written before it
        tmux("resize-window", "-t", "run", "-x", str(columns), "-y", str(lines))


def start_in_tmux(tmux: Callable[..., str], arguments: str, columns: int, lines: int) -> None:
    program = f"{command(arguments)}; sleep {PATIENCE}"
    tmux("new-session", "-d", "-s", "run", "-x", str(columns), "-y", str(lines), program)


def wait_for_copy(tmux: Callable[..., str], done: Callable[[str], bool]) -> str:
    """Screen and scrollback as a user copies them, once they are as wanted."""
    end = time.monotonic() + PATIENCE
    while not done(copied := tmux("capture-pane", "-J", "-p", "-S", "-", "-t", "run")):
        assert time.monotonic() < end, copied
        time.sleep(0.05)
    return "\n".join(line.rstrip() for line in copied.rstrip().split("\n"))


def assert_whole(terminal: Terminal, text: str | None = None) -> None:
    """The text, then one panel, then the script's own line; the terminal as it was."""
    lines = terminal.lines()
    assert terminal.shown().count("token ") >= 1
    assert lines[-1].startswith("reason ")
    if text is not None:
        expected = wrapped(text, terminal.screen.columns)
        assert lines[: len(expected)] == expected
    else:
        top = next(k for k, line in enumerate(lines) if "token " in line)
        assert_text_is_a_beginning(lines[:top], terminal.screen.columns)
    assert_restored(terminal)


def assert_text_is_a_beginning(lines: list[str], columns: int) -> None:
    told = "\n".join(lines)
    assert "\n".join(wrapped(scripted_run.PROMPT + "".join(scripted_run.STORY) * 100, columns)).startswith(told)
    assert len(told) > 50


def without_blanks(text: str) -> str:
    return "".join(text.split())

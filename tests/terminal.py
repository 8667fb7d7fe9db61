"""Programs on real pseudo-terminals and in tmux, and the screens that a user would see."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pexpect
import pyte
import scripted_run

from tokenglass.cli.terminal.region import END

SCRIPT = Path(scripted_run.__file__)
SIZES = [(40, 24), (80, 24), (120, 40), (200, 50), (80, 10)]
PATIENCE = 60  # seconds; a busy machine is slow, never wrong
LAST_ECHO = 3  # index of the local flags in termios attributes


class Terminal:
    """A program on a pseudo-terminal, and the screen with its scrollback as pyte understands them."""

    def __init__(self, arguments: str = "", columns: int = 80, lines: int = 24, program: str = "", **environment: str):
        environ = {
            name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "LC_ALL")
        }
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=0.5)
        self.stream = pyte.Stream(self.screen)
        self.output = ""
        self.child = pexpect.spawn(
            "bash",
            ["--norc", "-c", program or f"exec {command(arguments)}"],
            dimensions=(lines, columns),
            encoding="utf-8",
            timeout=PATIENCE,
            env={**environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PS1": "", **environment},
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

    def frames(self) -> Iterator[list[str]]:
        """The lines after each frame from now on, until the program ends."""
        unread, end = "", time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                part = self.child.read_nonblocking(65_536, timeout=0.1)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                break
            self.output += part
            *whole, unread = (unread + part).split(END)
            for frame in whole:
                self.stream.feed(frame + END)
                yield self.lines()
        self.stream.feed(unread)

    def drain(self) -> None:
        """Take all there is until nothing more comes."""
        before = None
        while before != len(self.output):
            before = len(self.output)
            self.read()

    def wait_for(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, self.text()
            assert self.read(), f"ended too early:\n{self.text()}"

    def wait_for_words(self, words: str) -> None:
        self.wait_for(lambda: words in self.text())

    def wait_for_token(self, number: int) -> None:
        self.wait_for(lambda: newest_token(self.text()) >= number)

    def finish(self) -> int:
        """Read to the end; the exit status, 128 and the signal's number for one that a signal ended."""
        end = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < end, self.text()
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

    def text(self) -> str:
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


def newest_token(text: str) -> int:
    """The number that the panel shows, or 0."""
    return max((int(number) for number in re.findall(r"token (\d+) ", text)), default=0)


def assert_restored(terminal: Terminal) -> None:
    """Cursor shown, lines wrap, no attribute or synchronized frame left open, echo on."""
    for on, off in (("\x1b[?25h", "\x1b[?25l"), ("\x1b[?7h", "\x1b[?7l"), ("\x1b[?2026l", "\x1b[?2026h")):
        assert terminal.output.rfind(on) >= terminal.output.rfind(off)
    assert pyte.modes.DECTCEM in terminal.screen.mode
    assert pyte.modes.DECAWM in terminal.screen.mode
    assert not terminal.screen.cursor.attrs.bold
    assert terminal.screen.cursor.attrs.fg == "default"


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

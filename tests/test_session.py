"""The harness of views that redraw, by the smallest of them, on real pseudo-terminals."""

from __future__ import annotations

import shlex
import signal
import sys
import termios
from collections.abc import Callable

import pytest
import scripted_session
from terminal import Terminal, assert_restored

from tokenglass.cli.terminal.region import SHOW
from tokenglass.cli.terminal.screen import LEAVE

PROGRAM = f"{shlex.quote(sys.executable)} {shlex.quote(scripted_session.__file__)}"
AFTER = "; echo status $?; stty -a | tr ' ' '\\n' | grep -xE -e '-?(echo|icanon)[;]?' | tr '\\n' ' '"
ENDS: dict[str, tuple[Callable[[Terminal], object], int]] = {
    "a key": (lambda terminal: terminal.child.send("q"), 0),
    "an error": (lambda terminal: terminal.child.send("e"), 3),
}


def afterwards(terminal: Terminal) -> list[str]:
    """What was written since the view's screen went; pyte has no alternate screen."""
    _, went, after = terminal.output.rpartition(LEAVE)
    assert went
    return [line.removeprefix(SHOW).strip() for line in after.split("\n") if line.strip()]


def start(program: str = PROGRAM) -> Terminal:
    terminal = Terminal(program=program)
    terminal.wait_for_words("a tick")
    return terminal


def test_keys_resizes_and_ticks_come_as_events() -> None:
    terminal = start()
    terminal.child.send("xé\x1b[A")
    terminal.wait_for_words("key up")
    terminal.resize(60, 20)
    terminal.wait_for_words("size (60, 20)")
    terminal.child.send("q")
    terminal.finish()
    order = [terminal.output.index(words) for words in ("ready", "a tick", "key x", "key é", "key up", "size (60, 20)")]
    assert order == sorted(order)


@pytest.mark.parametrize("name", ENDS)
def test_whatever_ends_it_the_last_frame_is_there_once_and_the_terminal_as_it_was(name: str) -> None:
    act, status = ENDS[name]
    terminal = start(f"{PROGRAM}{AFTER}")
    assert not terminal.local_flags & (termios.ECHO | termios.ICANON)
    act(terminal)
    terminal.finish()
    assert afterwards(terminal) == ["left behind", f"status {status}", "icanon echo"]
    assert_restored(terminal)


def test_a_signal_that_ends_the_program_leaves_the_terminal_as_it_was() -> None:
    terminal = start(f"exec {PROGRAM}")
    terminal.child.kill(signal.SIGTERM)
    assert terminal.finish() == 128 + signal.SIGTERM
    assert afterwards(terminal) == ["left behind"]
    assert_restored(terminal)


def test_a_suspension_gives_the_terminal_back_and_goes_on_with_a_new_frame() -> None:
    terminal = Terminal(program="exec bash --norc --noprofile -i")
    terminal.child.sendline(PROGRAM)
    terminal.wait_for_words("a tick")
    terminal.child.send("x\x1a")
    terminal.wait_for_words("Stopped")
    assert "ready" not in "".join(afterwards(terminal))
    assert_restored(terminal)
    terminal.child.sendline("fg")
    terminal.wait_for_words("size (80, 24)")
    terminal.child.send("q")
    terminal.wait_for_words("left behind")
    terminal.child.sendline("exit")
    terminal.finish()
    assert_restored(terminal)

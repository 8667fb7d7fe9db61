"""A chat on a real pseudo-terminal: Ctrl-C stops what is going on, and never ends the chat."""

from __future__ import annotations

import random
import shlex
import sys
import time
from pathlib import Path

import pytest
from terminal import Terminal
from test_chat import CHATML, chat_checkpoint

SLOW = (
    "{% if messages[-1].content == 'slow' %}{% for a in range(9999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}{% endif %}" + CHATML
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_checkpoint(tmp_path_factory.mktemp("chat"), SLOW)


def start(folder: Path, *arguments: str) -> Terminal:
    program = [
        sys.executable,
        "-m",
        "tokenglass.cli",
        "chat",
        "-m",
        str(folder),
        "--view",
        "plain",
        "--seed",
        "1",
        *arguments,
    ]
    terminal = Terminal(program=f"exec {shlex.join(program)}", columns=120, lines=50)
    terminal.wait_for_words("/help names")
    terminal.wait_for(lambda: terminal.text().endswith("\n>"))
    return terminal


def assert_goes_on(terminal: Terminal, answers: int = 0) -> None:
    """The chat answers another line, and ends at Ctrl-D."""
    terminal.child.sendline("hello")
    terminal.wait_for(lambda: terminal.text().count("positions reused") > answers)
    terminal.child.sendeof()
    assert terminal.finish() == 0, terminal.text()
    assert "Traceback" not in terminal.output


def test_ctrl_c_while_a_template_is_rendered_gives_the_line_up(folder: Path) -> None:
    terminal = start(folder, "-n", "4")
    terminal.child.sendline("slow")
    time.sleep(1.0)
    before = time.monotonic()
    terminal.child.sendintr()
    assert_goes_on(terminal)
    assert time.monotonic() - before < 30
    assert "did not end" not in terminal.text()


def test_a_template_that_fails_is_told_and_the_chat_goes_on(folder: Path) -> None:
    terminal = start(folder, "-n", "4")
    terminal.child.sendline("slow")
    terminal.wait_for_words("the chat template failed")
    assert_goes_on(terminal)


def test_ctrl_c_at_any_time_never_ends_a_chat(folder: Path) -> None:
    """While a line is typed, a prompt is read, an answer comes, and right after it."""
    dice = random.Random(1)
    terminal = start(folder, "-n", "40", "--prefill-chunk", "1")
    for _ in range(12):
        terminal.child.sendline(dice.choice(["hello there", "a fox " * 8, "/help", "slow"]))
        for _ in range(dice.randint(1, 4)):
            time.sleep(dice.random() * 0.15)
            terminal.child.sendintr()
        terminal.drain()
    terminal.child.sendintr()
    terminal.child.sendline("/clear")
    terminal.wait_for_words("the conversation is forgotten")
    assert_goes_on(terminal, terminal.text().count("positions reused"))

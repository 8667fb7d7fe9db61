"""Bars of long work: drawn where stderr is a terminal and gone at the end, silent elsewhere."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Generator

import pytest
from terminal import Terminal

from tokenglass.cli.progress import watch, watch_steps, watch_store
from tokenglass.model.errors import MadeMeanwhile
from tokenglass.model.progress import Progress

BYTES = """
import time
from tokenglass.cli.progress import watch
from tokenglass.model.progress import Progress
def work():
    for doing in ("fetching", "checking"):
        for part in range(1, 5):
            time.sleep(0.15)
            yield Progress(doing, part * 2**20, 4 * 2**20)
    return "made"
print(watch(work()))
"""
STEPS = """
import time
from tokenglass.cli.progress import watch_steps
def steps():
    for step in range(1, 5):
        time.sleep(0.15)
        yield step
print(sum(watch_steps(steps(), "measuring", 4, lambda step: step)))
"""


def work() -> Generator[Progress, None, str]:
    yield Progress("making", 1, 2)
    return "made"


def made_meanwhile() -> Generator[Progress, None, None]:
    yield Progress("making", 1, 2)
    raise MadeMeanwhile("the folder was made meanwhile")


@pytest.mark.parametrize(
    ("program", "bars", "end"),
    [(BYTES, ("fetching", "checking", "/4.0 MiB"), "made"), (STEPS, ("measuring", "3/4"), "10")],
    ids=["bytes", "steps"],
)
def test_a_terminal_shows_how_far_each_phase_is_and_keeps_no_trace(
    program: str, bars: tuple[str, ...], end: str
) -> None:
    terminal = Terminal(program=f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)}")
    assert terminal.finish() == 0
    for words in bars:
        assert words in terminal.output
    assert terminal.lines() == [end]


def test_elsewhere_the_same_comes_out_and_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert watch(work()) == "made"
    assert list(watch_steps(iter("abc"), "measuring", 3, ord)) == ["a", "b", "c"]
    assert capfd.readouterr() == ("", "")


def test_work_that_another_process_has_done_ends_with_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    watch_store(made_meanwhile())
    assert "made meanwhile" in capfd.readouterr().err

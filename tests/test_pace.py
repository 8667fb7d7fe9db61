"""The pace of the live view: what it adds to a run, which frames there is time for, and its keys, on real terminals."""

from __future__ import annotations

import re
import shlex
import sys
import time

import pytest
import scripted_run
import scripted_several
import shell
from hypothesis import given
from hypothesis import strategies as st
from terminal import Terminal, assert_restored, command
from wrapped_text import laid_out, wrap

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.views.pace import FIRST, MAX, MOST, Pace, Schedule, due
from tokenglass.model.errors import ParameterError

SEVERAL = f"{shlex.quote(sys.executable)} {shlex.quote(scripted_several.__file__)}"
SECONDS = st.lists(st.floats(0, 2), max_size=300)
COUNTS = st.lists(st.integers(0, 8), min_size=300, max_size=300)


def last_shown(pace: Pace, seconds: list[float], counts: list[int]) -> float:
    """When the last step is shown of a run that takes so long for each and is decoded one step ahead."""
    schedule, now = Schedule(pace), 0.0
    for took, count in zip(seconds, counts, strict=False):
        now = max(now + took, schedule.turn)
        schedule.show(now, count)
    return now


@given(st.integers(0, 100_000), st.integers(1, 100_000))
def test_each_choice_comes_sooner_after_the_one_before_and_all_within_eight_seconds(index: int, further: int) -> None:
    later = index + further
    assert 0 <= due(index) <= due(later) <= MOST
    assert due(later + 1) - due(later) <= due(index + 1) - due(index) + 1e-12


def test_the_default_begins_with_about_twelve_choices_a_second() -> None:
    assert due(0) == 0
    assert due(12) == pytest.approx(1, rel=0.1)
    assert due(1) == pytest.approx(1 / FIRST, rel=0.01)


@given(SECONDS, COUNTS)
def test_the_default_adds_eight_seconds_at_most_whatever_the_run(seconds: list[float], counts: list[int]) -> None:
    assert sum(seconds) - 1e-6 <= last_shown(Pace(), seconds, counts) <= sum(seconds) + MOST + 1e-6


@given(SECONDS, st.integers(1, 4))
def test_a_model_that_is_slower_than_the_pace_is_not_held_up(seconds: list[float], count: int) -> None:
    slow = [count / FIRST + more for more in seconds]
    assert last_shown(Pace(), slow, [count] * 300) == pytest.approx(sum(slow))


@given(SECONDS, COUNTS)
def test_the_highest_speed_adds_nothing(seconds: list[float], counts: list[int]) -> None:
    assert last_shown(MAX, seconds, counts) == pytest.approx(sum(seconds))


def test_a_speed_is_that_many_choices_a_second_and_keys_change_it() -> None:
    assert last_shown(Pace(5), [0.0] * 11, [1] * 11) == pytest.approx(2)
    for pace in (Pace(), Pace(5)):
        assert pace.faster().seconds(3) < pace.seconds(3) < pace.slower().seconds(3)
        assert pace.faster().slower().seconds(3) == pytest.approx(pace.seconds(3))
    assert MAX.slower().waits
    assert Pace(0).is_stepwise
    assert not Pace(0).faster().is_stepwise


@pytest.mark.parametrize("text", ["", "fast", "-1", "nan", "1 2"])
def test_what_is_no_speed_is_refused_in_one_line_before_a_model_is_looked_for(text: str) -> None:
    with pytest.raises(ParameterError, match="--speed"):
        Pace.parse(text)
    shell.assert_one_line_error(shell.generate("x", "-m", "/nowhere", f"--speed={text}"), 2, "--speed", "max")


def assert_frame_is_a_step(lines: list[str], pieces: tuple[str, ...] = scripted_run.STORY) -> int:
    """Text, title and chosen token of one frame belong to one step; its number, or 0 before the first."""
    top = next(k for k, line in enumerate(lines) if line.startswith("─ "))
    title = lines[top]
    number = int(match[1]) if (match := re.search(r"token (\d+) of", title)) else 0
    if number and "back" not in title:
        text = scripted_run.PROMPT + "".join(pieces[:number])
        is_whole = any("eos: the model" in line for line in lines)  # the last paragraph has been written unbroken
        assert lines[:top] == (wrap if is_whole else laid_out)(text, 80)
    if number:
        chosen = next(line for line in lines if line.startswith(" chosen"))
        assert chosen.split()[1] == visible_piece(pieces[number - 1].encode())
        assert f"{number + 4} of 1,024" in "".join(lines)
    return number


@pytest.mark.parametrize("speed", ["default", "15", "max"])
@pytest.mark.parametrize("delay", [0, 0.02])
def test_every_frame_shows_one_step_and_at_a_pace_every_step_has_one(speed: str, delay: float) -> None:
    terminal = Terminal(f"--delay {delay} --speed {speed}")

    numbers = [assert_frame_is_a_step(lines) for lines in terminal.frames()]

    assert numbers == sorted(numbers)
    if speed != "max":
        assert len(set(numbers) - {0}) >= 0.9 * len(scripted_run.STORY)
    assert terminal.finish() == 0
    assert_restored(terminal)


def test_keys_pause_step_back_and_forth_go_on_and_end_the_pace() -> None:
    terminal = Terminal("--repeat 9 --speed 20")
    terminal.wait_for_token(5)
    terminal.child.send(" ")
    terminal.wait_for_words("space go on")
    terminal.drain()
    newest = number_of(terminal)
    time.sleep(0.3)
    terminal.drain()
    assert number_of(terminal) == newest

    for back, keys in ((1, "\x1b[D"), (3, "hh"), (2, "\x1b[C")):
        terminal.child.send(keys)
        terminal.wait_for_words(f", {back} step{'s' * (back > 1)} back")
        assert assert_frame_is_a_step(terminal.lines()) == newest - back
    terminal.child.send("lll")
    terminal.wait_for_words(f"token {newest + 1} of")
    assert assert_frame_is_a_step(terminal.lines()) == newest + 1
    terminal.child.send(" ")
    terminal.wait_for_token(newest + 4)
    began = time.monotonic()
    terminal.child.send("f")
    assert terminal.finish() == 0
    assert time.monotonic() - began < 9 * len(scripted_run.STORY) / 20 / 2
    assert "token 477 of" in terminal.text()
    assert_restored(terminal)


@pytest.mark.parametrize("key", ["f", "\r", "\x1b[F"])
def test_f_enter_and_end_end_the_pace(key: str) -> None:
    terminal = Terminal("--speed 0.01")
    terminal.wait_for_token(1)
    terminal.child.send(key)
    assert terminal.finish() == 0
    assert terminal.lines()[-1] == "reason eos"


def test_plus_and_minus_change_the_speed_that_the_panel_shows() -> None:
    terminal = Terminal("--speed 1", columns=100)
    terminal.wait_for_words("+ - 1.0 a second")
    terminal.child.send("+")
    terminal.wait_for_words("+ - 1.5 a second")
    terminal.child.send("--")
    terminal.wait_for_words("+ - 0.7 a second")
    terminal.child.send("q")
    assert terminal.finish() == 0


def test_q_stops_after_what_was_shown_as_ctrl_c_does() -> None:
    for stop in ("q", "\x03"):
        terminal = Terminal("--repeat 9 --speed 10")
        terminal.wait_for_token(3)
        terminal.child.send(stop)
        assert terminal.finish() == 0
        assert terminal.lines()[-1] == "reason interrupt"
        assert number_of(terminal) < 20
        assert_restored(terminal)


def test_a_step_backwards_works_with_a_key_for_each_step_too() -> None:
    terminal = Terminal("--speed 0")
    terminal.wait_for_token(1)
    terminal.child.send("   ")
    terminal.wait_for_token(4)
    terminal.child.send("hh")
    terminal.wait_for_words("2 steps back")
    assert assert_frame_is_a_step(terminal.lines()) == 2
    terminal.child.send(" ")
    terminal.wait_for_words("token 5 of")
    assert assert_frame_is_a_step(terminal.lines()) == 5
    terminal.child.send("q")
    assert terminal.finish() == 0


@pytest.mark.parametrize("kind", ["", "--beams"])
def test_several_texts_keep_the_pace_and_step_back_pass_by_pass(kind: str) -> None:
    terminal = Terminal(program=f"exec {SEVERAL} --speed 20 {kind}")
    terminal.wait_for_token(5)
    terminal.child.send(" ")
    terminal.wait_for_words("space go on")
    newest = number_of(terminal)
    terminal.child.send("h")
    terminal.wait_for_words("1 pass back")
    assert newest - 2 <= number_of(terminal) < newest
    terminal.child.send("jud")  # what is for a single text does nothing here
    terminal.child.send("f")
    assert terminal.finish() == 0
    assert_restored(terminal)


def test_without_a_terminal_of_its_own_it_keeps_the_pace_and_reads_no_keys() -> None:
    terminal = Terminal(program=f"setsid --wait {command('--speed 200')}")
    assert terminal.finish() == 0
    assert "reason eos" in terminal.text()


def test_in_the_background_it_reads_no_keys_that_are_the_shells() -> None:
    terminal = Terminal(program="exec bash --norc --noprofile -i")
    terminal.child.sendline(f"{command('--speed 40')} & echo the shell goes on")
    terminal.wait_for_token(9)
    terminal.child.send("q")
    terminal.wait_for_words("reason eos")
    terminal.child.sendline("\x15wait; exit")
    terminal.finish()
    assert "Stopped" not in terminal.text()


def test_pipes_and_max_never_wait() -> None:
    for speed in ("0.01", "0", "max"):
        done = shell.generate("Once upon a time", "-n", "9", "--seed", "1", TOKENGLASS_SPEED=speed)
        assert done.returncode == 0
        assert done.stdout.decode().strip()


def test_the_time_of_a_limited_run_is_not_spent_on_waiting() -> None:
    program = "exec generate 'Once upon a time' -n 40 --seed 1 --max-time 60 --ignore-eos --stats"
    terminal = Terminal(program=program, TOKENGLASS_SPEED="")
    frames = sum(1 for _ in terminal.frames())
    assert terminal.finish() == 0
    assert frames < 40
    assert "finished by length" in terminal.text()


def number_of(terminal: Terminal) -> int:
    """The number of the token that the panel shows."""
    return int(re.findall(r"token (\d+) of", terminal.text())[-1])

"""replay on a terminal: keys lead to any place of a kept run, of whatever kind and length."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import shlex
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import scripted_run
import scripted_several
from scripted_run import STORY, choice
from shell import SCRIPTS, tokenglass
from terminal import Terminal, assert_restored
from test_pace import assert_frame_is_a_step
from test_trace_files import MODES

from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.terminal.session import Key
from tokenglass.cli.views.live import LiveSession, LiveView
from tokenglass.cli.views.pace import Pace
from tokenglass.cli.views.seeking import Entry
from tokenglass.model.records.steps import Finish, Record, Step, Totals
from tokenglass.model.records.surprise import bits, closeness, is_near_tie, is_surprise
from tokenglass.model.runs.playback import split_runs
from tokenglass.model.runs.run import Run, Search
from tokenglass.model.runs.trace import to_line
from tokenglass.model.runs.trace_reader import open_trace

RUN = scripted_run.run()
TIED = 21  # the token that another nearly stood in for


def write_trace(path: Path, run: Run, records: Iterator[Record]) -> Path:
    with path.open("w") as file:
        file.writelines(to_line(record) + "\n" for record in (run, *records))
    return path


def tied(step: Step) -> Step:
    (chosen,) = step.choices
    first, second, *rest = chosen.candidates
    second = dataclasses.replace(second, logprob=first.logprob - 0.1)
    return dataclasses.replace(step, choices=(dataclasses.replace(chosen, candidates=(first, second, *rest)),))


def records() -> Iterator[Record]:
    for record in scripted_run.records():
        yield tied(record) if isinstance(record, Step) and record.index == TIED - 1 else record


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trace(tmp_path_factory.mktemp("kept") / "run.jsonl", RUN, records())


def replayed(path: Path, *arguments: str) -> Terminal:
    return Terminal(program=f"exec {shlex.join([str(SCRIPTS / 'tokenglass'), 'replay', str(path), *arguments])}")


def test_what_surprises_and_what_nearly_ties_is_said_by_raw_probabilities() -> None:
    sure = choice(b" a", 0)
    assert bits(sure) == pytest.approx(-math.log2(0.312))
    assert closeness(sure) == pytest.approx(0.14 / 0.312)
    assert not is_surprise(sure)
    assert not is_near_tie(sure)
    assert is_surprise(choice(b" a", 4))
    assert is_near_tie(tied(next(iter(scripted_run.steps(STORY)))).choices[0])
    unknown = dataclasses.replace(sure, logprob=None, candidates=())
    assert (bits(unknown), closeness(unknown)) == (None, None)
    assert not is_surprise(unknown)
    assert not is_near_tie(unknown)


def test_keys_lead_forward_back_to_a_number_a_text_a_surprise_and_a_near_tie(trace: Path) -> None:
    terminal = replayed(trace, "--pause")
    terminal.wait_for_token(1)
    places = (
        (" ", 2),
        ("s", 5),  # every sixth token takes 8 bits
        ("s", 11),
        ("h", 10),
        ("t", TIED),
        ("g12\r", 12),
        ("t", TIED),
        ("g1\r", 1),
        ("/RIVER\x7f\x7f\x7f\x7f\x7friver\r", 20),
        ("g40\r", 40),
        ("/the\r", 51),
        ("s", 53),
        ("g3\r/the\r", 10),
        ("n", 19),
    )
    for keys, number in places:
        terminal.child.send(keys)
        terminal.wait_for_words(f"token {number} of")
        terminal.drain()
        assert assert_frame_is_a_step(terminal.lines()) == number, keys
    terminal.child.send("q")
    assert terminal.finish() == 130
    assert_restored(terminal)


def test_a_place_that_is_not_there_is_said_and_the_end_waits_for_a_key(trace: Path) -> None:
    terminal = replayed(trace, "--pause")
    terminal.wait_for_token(1)
    for keys, words in (("/nowhere\r", "no further nowhere"), ("g999\r", "no token 999"), ("t", "no further near-tie")):
        terminal.child.send(keys)
        terminal.wait_for_words(words)
        assert f"token {len(STORY)} of" in terminal.text()
    terminal.child.send("/no\x1b")
    terminal.wait_for_words("space next")
    terminal.child.send(" ")
    assert terminal.finish() == 0
    assert "the model chose to end" in terminal.text()


def test_from_and_pause_begin_at_a_step(trace: Path) -> None:
    terminal = replayed(trace, "--pause", "--from", "29")
    terminal.wait_for_words("token 30 of")
    terminal.drain()
    assert assert_frame_is_a_step(terminal.lines()) == 30
    terminal.child.send("f")
    assert terminal.finish() == 0


def test_the_recorded_speed_obeys_keys_too(tmp_path: Path) -> None:
    slow = (dataclasses.replace(record, seconds=30.0) for record in records() if isinstance(record, Step))
    path = write_trace(tmp_path / "slow", RUN, slow)
    terminal = replayed(path, "--speed", "300")  # a tenth of a second each
    terminal.wait_for_token(3)
    terminal.child.send(" ")
    terminal.wait_for_words("space go on")
    terminal.child.send("g2\r")
    terminal.wait_for_words("token 2 of")
    terminal.child.send("f")
    assert terminal.finish() == 0
    assert f"token {len(STORY)} of" in terminal.text()


@pytest.mark.parametrize("kind", ["samples", "beams"])
def test_several_texts_are_searched_pass_by_pass(kind: str, tmp_path: Path) -> None:
    never = threading.Event()
    search = Search(beams=3) if kind == "beams" else Search(3, (1, 22, 333))
    records = scripted_several.beams(0, never) if kind == "beams" else scripted_several.samples(0, never)
    path = write_trace(tmp_path / kind, scripted_run.run(search=search), records)
    terminal = replayed(path, "--pause")
    terminal.wait_for_token(1)
    for keys, number in ((" ", 2), ("s", 5), ("g9\r", 9), ("h", 8), ("g3\r", 3), ("s", 5)):
        terminal.child.send(keys)
        terminal.wait_for_words(f"token {number} of")
    terminal.child.send("/nowhere\r")
    terminal.wait_for_words("no further nowhere")
    terminal.child.send("f")
    assert terminal.finish() == 0


@pytest.mark.parametrize("mode", ["speculative", "parallel", "flow", "samples", "beams"])
def test_every_kind_of_real_run_can_be_walked(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert tokenglass(*MODES[mode], "--trace", str(path)).returncode == 0
    terminal = replayed(path, "--pause")
    terminal.wait_for_token(1)
    for keys in ("g9\r", "hh", "l", "s", "t", "g2\r", "/e\r", "n"):
        terminal.child.send(keys)
        terminal.drain()
    terminal.child.send("f")
    assert terminal.finish() == 0, terminal.text()
    assert_restored(terminal)


def test_an_entry_takes_what_fits_it() -> None:
    entry: Entry | None = Entry("g")
    for key in ("1", "x", "left", "2", "backspace", "3"):
        assert entry is not None
        entry = entry.press(key)
    assert entry == Entry("g", "13")
    assert Entry("/").press("backspace") is None
    assert Entry("/", "ab").press("escape") is None
    assert Entry("/").goal is None


LONG = 100_000
STEPS = list(scripted_run.steps(STORY))


@pytest.fixture(scope="module")
def long_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same steps again and again."""
    path = tmp_path_factory.mktemp("long") / "run.jsonl"
    lines = [to_line(step) + "\n" for step in STEPS[1:]]
    with path.open("w") as file:
        file.writelines((to_line(RUN) + "\n", to_line(STEPS[0]) + "\n"))
        file.writelines(itertools.islice(itertools.cycle(lines), LONG - 1))
        file.write(to_line(Finish(0, "length", "", Totals())) + "\n")
    return path


class Scripted(LiveSession):
    """Pressed keys come where the session waits for one; what memory was in use is noted at each."""

    def __init__(self, reread: Callable[[int], Step | None], run: Run, keys: Iterable[str]):
        console = make_console(io.StringIO(), color="never", environ={"TERM": "xterm"})
        super().__init__(LiveView(console, pace=Pace(0), reread=reread), run)
        self._pressed = iter(keys)
        self.used: list[int] = []

    def next_event(self, seconds: float) -> Key | None:
        if not (self._paused and self._can_wait and not self._seeks):
            return None
        console = self._view.console
        console.file = io.StringIO()  # what was drawn
        self.used.append(tracemalloc.get_traced_memory()[0])
        return Key(next(self._pressed))

    @property
    def token(self) -> int:
        return self._looked_at.totals.new_tokens


@pytest.mark.slow
def test_a_trace_of_100_000_steps_opens_at_once_and_hardly_any_memory_grows_with_it(long_trace: Path) -> None:
    with open_trace(long_trace) as trace:
        run, played = next(split_runs(trace))
        records: list[Record] = []
        session = Scripted(trace.following, run, "q")
        with pytest.raises(KeyboardInterrupt):
            session.run(records.append(record) or record for record in played)  # type: ignore[func-returns-value]
        assert (session.token, len(records)) == (1, 2)
        tracemalloc.start()
        session = Scripted(trace.following, run, [*"g999", "enter", *"g4999", "enter", *"g17", "enter", "q"])
        with pytest.raises(KeyboardInterrupt):
            session.run(played)
        tracemalloc.stop()
        assert session.token == 17
        assert session.used[10] - session.used[5] < 4_000 * 200

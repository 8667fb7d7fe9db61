"""replay: a kept run is shown again without its model, whoever wrote the trace."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import threading
import tracemalloc
from pathlib import Path

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_run import choice
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, generate, tokenglass
from test_hostile_traces import NASTY, assert_harmless
from test_trace import RUN, STEP
from test_trace_files import FINISH, MODES, whole

from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.views.live import LiveView
from tokenglass.cli.views.live_several import SeveralLive
from tokenglass.cli.views.several import Counted, SeveralPipe
from tokenglass.model.errors import TraceError
from tokenglass.model.records.steps import Finish, Record, Step, Totals
from tokenglass.model.runs.playback import Texts, at_speed, end_each, split_runs, unsure_stretches
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace import read, to_line
from tokenglass.model.runs.trace_reader import TraceReader, open_trace

NEVER = threading.Event()


@pytest.fixture(scope="module", params=["plain", "parallel", "samples", "beams", "flow"])
def kept_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The trace of a real run, and what the run wrote."""
    path = tmp_path_factory.mktemp("kept") / "run.jsonl.gz"
    done = tokenglass(*MODES[request.param], "--trace", str(path))
    assert done.returncode == 0, done.stderr.decode()
    return path, done.stdout


def test_a_pipe_gets_the_same_text_and_with_jsonl_the_same_records(kept_run: tuple[Path, bytes]) -> None:
    path, text = kept_run
    assert tokenglass("replay", str(path)).stdout == text
    assert tokenglass("replay", "-", stdin=path.read_bytes()).stdout == text
    lines = tokenglass("replay", str(path), "--jsonl").stdout
    assert tokenglass("replay", "-", "--jsonl", stdin=lines).stdout == lines
    with open_trace(path) as trace:
        assert len(lines.splitlines()) == len(list(trace))


def final_screen(run: Run, records: list[Record]) -> list[str]:
    out = io.StringIO()
    console = make_console(out, color="never", environ={"TERM": "xterm"})
    console.width, console.height = 80, 40
    (SeveralLive(console) if run.search.is_several else LiveView(console)).show(run, records)
    screen = pyte.Screen(80, 40)
    pyte.Stream(screen).feed(out.getvalue().replace("\n", "\r\n"))
    return list(screen.display)


def test_the_last_screen_is_that_of_the_records_that_were_written(kept_run: tuple[Path, bytes]) -> None:
    lines = tokenglass("replay", str(kept_run[0]), "--jsonl").stdout.decode().split("\n")[:-1]
    run, *records = read(lines)
    with open_trace(kept_run[0]) as trace:
        again, played = next(split_runs(trace))
        replayed = list(end_each(at_speed(played, float("inf"), NEVER), NEVER))
    assert isinstance(run, Run)
    assert again == run
    screen = final_screen(again, replayed)
    assert screen == final_screen(run, [record for record in records if not isinstance(record, Run)])
    assert any("eos" in row or "length" in row for row in screen)


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "tokenizers", "safetensors", "transformers") or name.startswith((
            "tokenglass.model.native_engine", "tokenglass.model.torch_engine", "tokenglass.model.engine",
            "tokenglass.model.loading", "tokenglass.model.text.tokenizer",
        )):
            raise AssertionError(name)
sys.meta_path.insert(0, Blocked())
from tokenglass.cli.__main__ import tokenglass
tokenglass()
"""


def test_no_engine_is_imported(kept_run: tuple[Path, bytes]) -> None:
    ways = (
        ["replay"],
        ["replay", "--jsonl"],
        ["replay", "--stats"],
        ["replay", "--unsure", "0.5"],
        ["export", "--html"],
    )
    for arguments in ways:
        command = [SCRIPTS / "python", "-c", BLOCKED, *arguments, kept_run[0]]
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr.decode()


class Waits(threading.Event):
    """Notes what it was to wait for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return False


def test_a_pass_takes_its_recorded_time_over_the_speed_once_for_all_its_texts() -> None:
    steps = [
        dataclasses.replace(STEP, index=index, forward=forward, sequence=index % 2, seconds=seconds)
        for index, (forward, seconds) in enumerate([(0, 2.0), (0, 2.0), (1, 0.5), (2, 1e308), (3, -1.0)])
    ]
    for speed, begin, expected in ((1, 0, [2, 0.5, 60]), (4, 0, [0.5, 0.125, 60]), (1, 2, [0.5, 60])):
        waits = Waits()
        assert list(at_speed([*steps, FINISH], speed, waits, begin)) == [*steps, FINISH]
        assert waits.seconds == expected
    waits = Waits()
    list(at_speed([dataclasses.replace(STEP, seconds=float("nan"))], float("inf"), waits))
    assert waits.seconds == []


def test_an_interrupt_ends_what_is_played() -> None:
    interrupt = threading.Event()
    played = at_speed([STEP, STEP, FINISH], float("inf"), interrupt)
    assert next(played) == STEP
    interrupt.set()
    assert list(played) == []


def test_a_run_that_was_killed_ends_with_an_error_and_what_it_had_done() -> None:
    *_, finish = end_each([STEP, dataclasses.replace(STEP, sequence=1), STEP], NEVER)
    assert isinstance(finish, Finish)
    assert (finish.sequence, finish.reason, finish.totals.new_tokens) == (1, "error", 1)
    assert list(end_each([STEP, FINISH], NEVER)) == [STEP, FINISH]
    assert list(end_each([], NEVER)) == [Finish(0, "error", "", Totals())]


def test_every_turn_of_a_chat_is_a_run_of_its_own() -> None:
    runs = [(run, list(records)) for run, records in split_runs([RUN, STEP, FINISH, RUN, FINISH])]
    assert runs == [(RUN, [STEP, FINISH]), (RUN, [FINISH])]


def unsure_step(probs: list[float | None], start: int = 5, **fields: object) -> Step:
    chosen = [dataclasses.replace(choice(b" a%d" % k), position=start + k, prob=prob) for k, prob in enumerate(probs)]
    return dataclasses.replace(STEP, choices=tuple(chosen), **fields)


def test_unsure_stretches_are_those_below_the_threshold_that_stand() -> None:
    texts = Texts()
    texts.add(unsure_step([0.9, 0.1, 0.2, 0.3, None, 0.1]))
    texts.add(unsure_step([0.05], start=9, rewound_to=9))
    stretches = list(unsure_stretches(texts, 0.3))
    assert [(each.start, [choice.prob for choice in each.choices]) for each in stretches] == [
        (2, [0.1, 0.2]),
        (5, [0.05]),
    ]
    assert stretches[0].before == " a0"
    assert list(unsure_stretches(texts, 0)) == []


def test_positions_of_a_block_come_in_any_order_and_stand_in_theirs() -> None:
    texts = Texts()
    for position in (5, 8, 6, 7, 9):
        texts.add(unsure_step([0.1], start=position))
    assert [choice.position for choice in texts.choices[0]] == [5, 6, 7, 8, 9]


def test_unsure_lists_tokens_and_fails_for_scripts(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    generate("The fox", "-n", "20", "--seed", "3", "--trace", str(path))
    every, none = (tokenglass("replay", str(path), "--unsure", at, "--fail") for at in ("1", "0"))
    assert (every.returncode, none.returncode) == (1, 0)
    assert none.stdout == b""
    assert "beside" in every.stdout.decode()
    assert tokenglass("replay", str(path), "--unsure", "1").returncode == 0
    least = min(json.loads(line)["choices"][0]["prob"] for line in path.read_text().split("\n")[1:-2])
    text = tokenglass("replay", str(path), "--unsure", str(least * 1.0001)).stdout.decode()
    assert len(text.splitlines()) == 2, "one stretch of one token"


def test_bad_traces_and_options_are_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    for content, words in (
        (b"", "is empty"),
        (b"hello", "not a JSON line"),
        (whole(1).replace(b'"version":2', b'"version":99'), "version 99 is unknown"),
        (whole(1).replace(b'"index":0', b'"index":"0"'), "line 2: trace: Step.index"),
        (b"\x1f\x8bgarbage", "damaged gzip"),
    ):
        bad.write_bytes(content)
        assert_one_line_error(tokenglass("replay", str(bad)), 1, f"{bad}: ", words)
    assert_one_line_error(tokenglass("replay", str(tmp_path / "no")), 1, "No such file")
    assert_one_line_error(tokenglass("replay", str(tmp_path)), 1, "not a regular file")
    for wrong in ("0", "-1", "fast", "nan"):
        assert_one_line_error(tokenglass("replay", str(bad), "--speed", wrong), 2, "above 0, or max")
    assert_one_line_error(tokenglass("replay", str(bad), "--fail"), 2, "--unsure")


@settings(max_examples=200)
@given(
    place=st.integers(0, len(whole(2)) - 1),
    new=st.sampled_from([b"", b"\x00", b"null", b"-1", b"1e999", b"{}", b'"', b"[", b"\\ud800", b"\xff", b"\n"]),
    length=st.integers(0, 12),
)
def test_a_changed_trace_is_shown_or_refused_in_one_line(place: int, new: bytes, length: int) -> None:
    content = whole(2)
    content = content[:place] + new + content[place + length :]
    try:
        for run, records in split_runs(TraceReader(io.BytesIO(content), is_file=True)):
            out = io.BytesIO()
            Counted(SeveralPipe(out)).show(run, end_each(records, NEVER))
    except TraceError as error:
        message = str(error)
        assert_harmless(message)
        if "\n" in message or len(message) > 500:
            pytest.fail(message)


def test_unsure_shows_hostile_pieces_harmlessly(tmp_path: Path) -> None:
    path = tmp_path / "run"
    nasty = dataclasses.replace(choice(NASTY.encode()), prob=0.1)
    step = dataclasses.replace(STEP, choices=(nasty, dataclasses.replace(nasty, position=6)))
    path.write_text("".join(to_line(record) + "\n" for record in (RUN, step, FINISH)))
    assert_harmless(tokenglass("replay", str(path), "--unsure", "1").stdout.decode())


def test_a_long_trace_is_read_as_far_as_it_is_shown_and_never_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("w") as file:
        file.write(to_line(RUN) + "\n")
        file.write((to_line(STEP) + "\n") * 5_000)
    with path.open("rb") as stream, TraceReader(stream, is_file=True) as trace:
        next(iter(trace))
        assert stream.tell() < 10_000
        tracemalloc.start()
        assert sum(1 for _ in trace) == 5_001
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()

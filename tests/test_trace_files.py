"""A kept run: written as it happens, never over or through anything, read whole whatever cut it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gzip
import io
import json
import os
import signal
import stat
import subprocess
import time
import tracemalloc
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_run import choice
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, generate, tokenglass
from test_chat import CHATML, chat_checkpoint
from test_trace import RUN, STEP, records

from tokenglass.model.errors import ParameterError, TraceError
from tokenglass.model.records.steps import Finish, Record, Step, Totals
from tokenglass.model.runs import trace_reader
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.schema import trace_schema
from tokenglass.model.runs.trace import to_line
from tokenglass.model.runs.trace_reader import TraceReader, open_trace
from tokenglass.model.runs.trace_writer import WAIT_SECONDS, WAIT_STEPS, TraceWriter, shorten, watch

SHORT = ("--seed", "1", "-n", "12", "--threads", "1")
FINISH = Finish(0, "length", "", Totals())
SCHEMA = jsonschema.Draft202012Validator(trace_schema())
MODES = {
    "plain": ("generate", "The fox", *SHORT),
    "flow": ("generate", "The fox", "--flow", *SHORT),
    "parallel": ("generate", "The fox", "--mode", "parallel", "--passes", "4", *SHORT),
    "speculative": ("generate", "The fox met the fox and the", "--mode", "speculative", *SHORT),
    "jacobi": ("generate", "The fox", "--mode", "jacobi", *SHORT),
    "samples": ("generate", "The fox", "--num-samples", "3", *SHORT),
    "beams": ("generate", "The fox", "--beams", "3", *SHORT),
    "stops and bans": ("generate", "The fox", "--stop", "was", "--ban", " and", *SHORT),
    "a choice": ("generate", "The fox", "--choice", " yes", "--choice", " no", *SHORT),
    "healing and penalties": ("generate", "Once upon a ti", "--heal", "--repetition-penalty", "1.3", *SHORT),
    "guidance": ("generate", "The fox", "--negative", "The sad fox", "--guidance", "2", *SHORT),
}


def lines_of(path: Path) -> list[str]:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode().split("\n")[:-1]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_kept_in_lines_that_fit_the_schema_and_come_back_byte_for_byte(mode: str, tmp_path: Path) -> None:
    command, *arguments = MODES[mode]
    path = tmp_path / "run.jsonl"
    done = tokenglass(command, *arguments, "--trace", str(path))
    assert done.returncode == 0, done.stderr.decode()
    lines = lines_of(path)
    for line in lines:
        SCHEMA.validate(json.loads(line))
    with open_trace(path) as trace:
        trace_records = list(trace)
    assert [to_line(record) for record in trace_records] == lines
    assert isinstance(trace_records[0], Run)
    assert isinstance(trace_records[-1], Finish)
    assert any(isinstance(record, Step) and record.flow for record in trace_records) == (mode == "flow")


@settings(max_examples=60)
@given(record=records)
def test_any_record_fits_the_schema(record: Run | Step | Finish) -> None:
    SCHEMA.validate(json.loads(to_line(record)))


def test_the_schema_in_the_package_is_that_of_the_records() -> None:
    text = files("tokenglass.model.runs").joinpath("trace.schema.json").read_text()
    assert json.loads(text) == trace_schema(), "python -m tokenglass.model.runs.schema > model/runs/trace.schema.json"
    jsonschema.Draft202012Validator.check_schema(trace_schema())


def test_the_schema_refuses_a_line_that_lacks_or_mistypes_a_field() -> None:
    content = json.loads(to_line(STEP))
    for changes in ({"index": "0"}, {"phase": "dreaming"}, {"more": 1}, {"record": "finish"}):
        assert not SCHEMA.is_valid({**content, **changes})
    del content["seconds"]
    assert not SCHEMA.is_valid(content)


def test_the_file_keeps_more_candidates_than_the_screen_shows(tmp_path: Path) -> None:
    path, arguments = tmp_path / "run.jsonl", ("The fox", "--jsonl", "--top", "2", *SHORT)
    alone, with_trace = generate(*arguments), generate(*arguments, "--trace", str(path), "--trace-top", "7")
    assert without_seconds(with_trace.stdout.decode().splitlines()) == without_seconds(
        alone.stdout.decode().splitlines()
    )
    assert {len(json.loads(line)["choices"][0]["candidates"]) for line in lines_of(path)[1:-1]} <= {7, 8}
    assert json.loads(lines_of(path)[0])["request"]["top"] == 7
    fewer = tmp_path / "fewer.jsonl"
    generate(*arguments, "--trace", str(fewer), "--trace-top", "1")
    assert {len(json.loads(line)["choices"][0]["candidates"]) for line in lines_of(fewer)[1:-1]} <= {1, 2}


def without_seconds(lines: list[str]) -> list[str]:
    def scrub(content: dict[str, object]) -> dict[str, object]:
        return {k: scrub(v) if isinstance(v, dict) else v for k, v in content.items() if "seconds" not in k}

    return [json.dumps(scrub(json.loads(line))) for line in lines]


def test_the_chosen_token_stays_where_candidates_are_left_out() -> None:
    step = dataclasses.replace(STEP, choices=(choice(b" fox", 4),))
    (few,) = getattr(shorten(step, 2), "choices", ())
    assert [each.token_id for each in few.candidates] == [300, 301, few.token_id]
    assert shorten(step, 100) is step


def test_a_chat_keeps_every_turn(tmp_path: Path) -> None:
    folder = chat_checkpoint(tmp_path / "chat", CHATML)
    path = tmp_path / "chat.jsonl"
    arguments = ("chat", "-m", str(folder), "-n", "3", "--seed", "1", "--trace", str(path))
    done = tokenglass(*arguments, stdin=b"hello\nagain\n")
    assert done.returncode == 0, done.stderr.decode()
    kinds = [json.loads(line)["record"] for line in lines_of(path)]
    assert [kind for kind in kinds if kind != "step"] == ["run", "finish"] * 2


def test_a_trace_is_the_owners_alone_and_is_compressed_by_its_name(tmp_path: Path) -> None:
    for name in ("run.jsonl", "run.jsonl.gz"):
        generate("The fox", *SHORT, "--trace", str(tmp_path / name), stdin=None)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    plain, packed = (lines_of(tmp_path / name) for name in ("run.jsonl", "run.jsonl.gz"))
    assert without_seconds(plain) == without_seconds(packed)
    assert (tmp_path / "run.jsonl.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_nothing_is_written_over_or_followed(tmp_path: Path) -> None:
    file, link, hanging, pipe = (tmp_path / name for name in ("kept", "link", "hanging", "pipe"))
    file.write_text("a kept run")
    link.symlink_to(file)
    hanging.symlink_to(tmp_path / "nowhere")
    os.mkfifo(pipe)
    for path in (file, link, hanging, pipe, tmp_path, Path("/dev/null")):
        assert_one_line_error(generate("The fox", *SHORT, "--trace", str(path)), 2, "already exists")
    assert_one_line_error(generate("The fox", "--trace", str(tmp_path / "no" / "run")), 2, "there is no folder")
    assert file.read_text() == "a kept run"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_comes_between_the_look_and_the_first_record_is_not_written_over(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    (tmp_path / "run").write_text("another's")
    with pytest.raises(ParameterError, match="no trace can be written"):
        list(watch(RUN, [FINISH], writer.add))
    assert (tmp_path / "run").read_text() == "another's"


def test_a_run_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    done = generate("The fox", "--mode", "speculative", "--no-cache", "--trace", str(path))
    assert done.returncode == 2
    assert not path.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_ends_the_trace_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TraceWriter(tmp_path / "run")
    monkeypatch.setattr("tokenglass.model.runs.trace_writer.create", lambda *_: os.open("/dev/full", os.O_WRONLY))
    passed = list(watch(RUN, [STEP, STEP, FINISH], writer.add))
    writer.close()
    assert passed == [STEP, STEP, FINISH]
    assert writer.failure is not None
    assert writer.failure.errno == errno.ENOSPC


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
        "sys.argv = ['generate', *sys.argv[1:]]; from tokenglass.cli.__main__ import generate; generate()"
    )
    path = tmp_path / "run.jsonl"
    command = [SCRIPTS / "python", "-c", code, "The fox", *SHORT, "--trace", path]
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, env=ENVIRONMENT)
    assert done.returncode == 0
    assert done.stdout == generate("The fox", *SHORT).stdout
    (line,) = done.stderr.decode().splitlines()
    assert "the trace ends early (File too large)" in line
    with open_trace(path) as trace:
        assert len(list(trace)) in (2, 3, 4)
        assert trace.note


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.gz"])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_whole_lines(name: str, end: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / name
    command = [SCRIPTS / "generate", "The fox", "-n", "1000", "--ignore-eos", "--trace", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as running:
        assert running.stdout is not None
        running.stdout.read(300)
        running.send_signal(end)
        running.communicate()
    with open_trace(path) as trace:
        lines = list(trace)
    assert len(lines) > 20
    assert isinstance(lines[-1], Finish) == (end == signal.SIGINT)


def whole(count: int) -> bytes:
    records: list[Run | Record] = [RUN, *(dataclasses.replace(STEP, index=index) for index in range(count)), FINISH]
    return "".join(to_line(record) + "\n" for record in records).encode()


@given(cut=st.integers(1, len(whole(5)) - 1), packed=st.booleans(), is_file=st.booleans())
def test_a_trace_that_is_cut_anywhere_gives_its_whole_lines_and_a_note(cut: int, packed: bool, is_file: bool) -> None:
    content = gzip.compress(whole(5)) if packed else whole(5)
    beginning = content[: min(cut, len(content) - 1)]
    with TraceReader(io.BytesIO(beginning), is_file=is_file) as trace:
        records = []
        with contextlib.suppress(TraceError):  # where not even the run is whole
            for record in trace:
                records.append(record)
        assert records == list(TraceReader(io.BytesIO(whole(5)), is_file=True))[: len(records)]
        assert trace.note or beginning.endswith(b"\n") or len(records) in (0, 7)
        assert records or packed or b"\n" not in beginning


@given(damage=st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)))
def test_damaged_gzip_is_refused_in_one_line_or_read(damage: tuple[int, bytes]) -> None:
    content = bytearray(gzip.compress(whole(5)))
    content[damage[0] : damage[0] + len(damage[1])] = damage[1]
    with TraceReader(io.BytesIO(bytes(content)), is_file=True) as trace, contextlib.suppress(TraceError):
        list(trace)


def test_files_one_behind_the_other_are_one_trace() -> None:
    content = gzip.compress(whole(2)) + gzip.compress(whole(3))
    with TraceReader(io.BytesIO(content), is_file=True) as trace:
        assert len(list(trace)) == 4 + 5
        assert trace.note == ""


def test_a_line_beyond_the_limit_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_reader, "MAX_LINE", 5000)
    for packed in (False, True):
        content = whole(1) + b"x" * 10**7
        with TraceReader(io.BytesIO(gzip.compress(content) if packed else content), is_file=True) as trace:
            tracemalloc.start()
            with pytest.raises(TraceError, match="longer than 5,000 bytes, refused"):
                list(trace)
            assert tracemalloc.get_traced_memory()[1] < 2**24
            tracemalloc.stop()


def test_what_is_no_trace_says_so(tmp_path: Path) -> None:
    for content, message in (
        (to_line(STEP).encode() + b"\n", "does not begin with a run"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b"hello\n", "not a JSON line"),
    ):
        with pytest.raises(TraceError, match=message):
            list(TraceReader(io.BytesIO(content), is_file=True))
    with pytest.raises(TraceError, match="cannot be read"):
        open_trace(tmp_path)


def test_any_line_can_be_read_again() -> None:
    for is_file in (True, False):
        with TraceReader(io.BytesIO(whole(50)), is_file=is_file) as trace:
            there = trace.record(40)
            assert isinstance(there, Step)
            assert there.index == 39
            assert isinstance(trace.record(0), Run)
            assert trace.record(40) == there
            assert trace.record(52) is None
            assert trace.record(51) == FINISH


def test_fast_steps_wait_for_a_few_others_and_a_step_after_a_while_for_none(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    writer = TraceWriter(path)
    writer.add(RUN)
    for count in range(1, 3 * WAIT_STEPS):
        writer.add(STEP)
        assert 1 + count - WAIT_STEPS < len(path.read_text().splitlines()) <= 1 + count
    time.sleep(2 * WAIT_SECONDS)
    writer.add(STEP)
    assert len(path.read_text().splitlines()) == 1 + 3 * WAIT_STEPS
    writer.add(STEP)
    writer.add(Finish(0, "length", "", Totals()))
    assert len(path.read_text().splitlines()) == 3 + 3 * WAIT_STEPS, "an end waits for nothing"
    writer.close()

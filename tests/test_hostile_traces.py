"""A trace that a stranger sent: every reader gives one clear line, and every view shows its records safely."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from typing import Any, get_args

import pytest
from described_runs import RUNS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_trace import RUN, STEP

from tokenglass.cli.run.summary import summary
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.views.jsonl import JsonlView
from tokenglass.cli.views.live import LiveView
from tokenglass.cli.views.live_several import SeveralLive
from tokenglass.cli.views.plain import PipeView, PlainView
from tokenglass.cli.views.several import Counted, SeveralPipe, SeveralPlain
from tokenglass.cli.widgets.panel import Size
from tokenglass.model.decoding.modes import ModeSettings
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import TraceError
from tokenglass.model.records.steps import (
    Block,
    CacheUsage,
    Candidate,
    Choice,
    Finish,
    Phase,
    Reason,
    StateUsage,
    Status,
    Step,
    Totals,
)
from tokenglass.model.runs.run import EngineSettings, Run, Search
from tokenglass.model.runs.trace import from_line, read, to_line
from tokenglass.model.sampling.parameters import SETTINGS

OWN = re.compile(r"\x1b(\[[0-9;]*[mHAG]|\[[JK]|\[2K|\[\?(25|7|2026|1049)[hl]|[78D])")
STRANGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NASTY = "\x1b]0;x\x07\x9b31m\u202e\x08\x7f\x85\x1b[5;31;7mX"

TEXT = st.sampled_from(["", "The fox", NASTY, f"\n{NASTY}\n\t", "日本語", "x" * 300]) | st.text(max_size=5)
PIECE = st.binary(max_size=4) | TEXT.map(lambda text: text.encode("utf-8", "replace"))
EXTREMES = [0, 1, -1, 5, 2**31, 2**53, 2**64, -(2**63)]
NUMBER = st.sampled_from(EXTREMES) | st.integers(0, 300)
FLOAT = st.sampled_from([0.0, 0.5, 1.0, -1.0, -1e308, 1e308, 1e-320, math.nan]) | st.floats(0, 1)

candidates = st.builds(
    Candidate,
    NUMBER,
    PIECE,
    FLOAT,
    st.none() | FLOAT,
    st.none() | TEXT,
    st.lists(st.tuples(TEXT, FLOAT), max_size=2).map(tuple),
)
choices = st.builds(
    Choice,
    NUMBER,
    st.none() | NUMBER,
    PIECE,
    st.none() | FLOAT,
    st.none() | FLOAT,
    st.none() | NUMBER,
    st.none() | FLOAT,
    st.none() | FLOAT,
    st.lists(candidates, max_size=3).map(tuple),
    st.sampled_from(get_args(Status)),
)
states = st.lists(st.builds(StateUsage, TEXT, NUMBER), max_size=3).map(tuple)
caches = st.builds(CacheUsage, *[NUMBER] * (len(dataclasses.fields(CacheUsage)) - 1), st.none() | states)
flow_rows = st.dictionaries(
    st.sampled_from(["token", "piece", "kind", "value", "name"]) | TEXT, FLOAT | TEXT | st.none(), max_size=3
)
steps = st.builds(
    Step,
    NUMBER,
    NUMBER,
    NUMBER,
    st.sampled_from(get_args(Phase)),
    NUMBER,
    st.lists(choices, max_size=2).map(tuple),
    TEXT,
    st.none() | caches,
    FLOAT,
    st.none() | NUMBER,
    st.none() | NUMBER,
    st.none() | st.builds(Block, NUMBER, NUMBER),
    st.none() | st.lists(flow_rows, max_size=2).map(tuple),
)
totals = st.builds(Totals, NUMBER, NUMBER, NUMBER, FLOAT, NUMBER, FLOAT, NUMBER, NUMBER, NUMBER)
finishes = st.builds(Finish, NUMBER, st.sampled_from(get_args(Reason)), TEXT, totals, st.none() | FLOAT)
runs = st.builds(
    lambda run, model, prompt, engine: dataclasses.replace(run, model=model, prompt=prompt, engine=engine),
    RUNS,
    TEXT,
    TEXT,
    st.builds(EngineSettings, st.none() | TEXT, st.none() | TEXT, TEXT, st.none() | TEXT, st.none() | NUMBER),
)
traces = st.tuples(runs, st.lists(steps, max_size=3), st.lists(finishes, min_size=1, max_size=2))
FEW = settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def read_back(trace: tuple[Run, list[Step], list[Finish]]) -> tuple[Run, list[Any]]:
    """The trace as its lines give it: what a reader refuses is no matter of a view."""
    run, *records = read([to_line(record) for record in (trace[0], *trace[1], *trace[2])])
    assert isinstance(run, Run)
    return run, records


def assert_harmless(text: str) -> None:
    match = STRANGE.search(OWN.sub("", text))
    assert match is None, ascii(text[max(0, match.start() - 50) : match.end() + 50])


@pytest.mark.slow
@FEW
@given(trace=traces, size=st.sampled_from(get_args(Size)), width=st.sampled_from([20, 60, 120]), color=st.booleans())
def test_the_live_view_shows_any_record(trace: Any, size: Size, width: int, color: bool) -> None:
    run, records = read_back(trace)
    for make in (
        lambda console: LiveView(console, size, "probability" if color else "entropy"),
        lambda console: SeveralLive(console, 2, size),
    ):
        out = io.StringIO()
        console = make_console(out, color="always")
        console.width, console.height = width, 24
        make(console).show(run, records)
        assert_harmless(out.getvalue())


@FEW
@given(trace=traces)
def test_plain_views_show_any_record(trace: Any) -> None:
    run, records = read_back(trace)
    for make in (PlainView, SeveralPlain):
        out = io.StringIO()
        finish = Counted(make(make_console(out, color="always"))).show(run, records)
        assert_harmless(out.getvalue())
        assert isinstance(summary(run, finish), str)


@FEW
@given(trace=traces)
def test_pipes_get_the_exact_bytes_of_any_record(trace: Any) -> None:
    run, records = read_back(trace)
    out = io.BytesIO()
    PipeView(out, echo=True).show(run, records)
    assert out.getvalue().decode() == run.prompt + "".join(record.text for record in records)
    SeveralPipe(io.BytesIO()).show(run, records)
    out = io.BytesIO()
    JsonlView(out).show(run, records)
    assert list(read(out.getvalue().decode().split("\n")[:-1]))[1:] == records or "nan" in repr(records)


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@FEW
@given(trace=traces)
def test_json_lines_on_a_terminal_are_harmless_and_the_same_json(trace: Any) -> None:
    run, records = read_back(trace)
    out, plain = Terminal(), io.BytesIO()
    JsonlView(out).show(run, records)
    JsonlView(plain).show(run, records)
    assert_harmless(out.getvalue().decode())
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        json.loads(line) for line in plain.getvalue().decode().split("\n")[:-1]
    ]


ODD = st.none() | st.booleans() | NUMBER | FLOAT | TEXT | st.lists(NUMBER | TEXT, max_size=3) | flow_rows
PARTS = {"request": Request, "search": Search, "mode": ModeSettings}
PLACES = [
    *((part, field.name) for part, kind in PARTS.items() for field in dataclasses.fields(kind)),
    *(("sampling", name) for name in (*SETTINGS, "samplers")),
]


@settings(max_examples=60)
@given(changes=st.dictionaries(st.sampled_from(PLACES), ODD, min_size=1, max_size=3), steps=st.lists(steps, max_size=2))
def test_any_value_in_any_setting_is_read_and_shown_or_refused(changes: Any, steps: list[Step]) -> None:
    content = json.loads(to_line(RUN))
    objects = {**content, "sampling": content["request"]["sampling"]}
    for (part, field), value in changes.items():
        if objects[part] is not None:
            objects[part][field] = None if isinstance(value, float) and math.isnan(value) else value
    try:
        run = from_line(json.dumps(content))
    except TraceError:
        return
    assert isinstance(run, Run)
    finish = Finish(0, "eos", "", Totals())
    finishes = Counted(SeveralPlain(make_console(io.StringIO(), color="never"))).show(run, [*steps, finish])
    assert isinstance(summary(run, finishes), str)
    out = io.StringIO()
    console = make_console(out, color="always")
    console.width, console.height = 60, 24
    LiveView(console, "full", "none").show(run, [*steps, finish])
    SeveralLive(console, 2, "full").show(run, [*steps, finish])
    assert_harmless(out.getvalue())


DEEP = "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    "line",
    [
        "[" * 10**6,
        '{"record": "step", "text": "' + "x" * 10**7,
        '{"record": "' + "x" * 10**7 + '"}',
        json.dumps({**json.loads(to_line(STEP)), "phase": NASTY * 10**5}),
        json.dumps({**json.loads(to_line(STEP)), "choices": [["x"] * 10**5]}),
        json.dumps({**json.loads(to_line(RUN)), "version": NASTY * 10**5}),
        json.dumps({**json.loads(to_line(RUN)), "prompt": ["x" * 10**6]}),
        to_line(RUN).replace('"top_k":5', f'"top_k":{DEEP}'),
        to_line(STEP).replace('"seconds":0.5', f'"seconds":{"9" * 5000}'),
        to_line(STEP).replace('"index":0', f'"index":{"9" * 4000}'),
        to_line(STEP).replace('"index":0', '"index":1e400'),
        NASTY * 10**5,
    ],
    ids=range(12),
)
def test_a_reader_gives_one_short_line(line: str) -> None:
    with pytest.raises(TraceError) as caught:
        list(read([line]))
    assert len(str(caught.value)) < 500
    assert len(str(caught.value).splitlines()) == 1


@given(
    mutation=st.tuples(
        st.integers(0, 400), st.sampled_from(["", "\x00", "null", "-", "1e999", "{}", '"', "[", "\\ud800", "NaN"])
    )
)
@example((0, "\ufeff"))
def test_a_changed_line_is_read_or_refused(mutation: tuple[int, str]) -> None:
    place, new = mutation
    for record in (STEP, RUN, Finish(0, "eos", NASTY, Totals())):
        line = to_line(record)
        try:
            found = from_line(line[:place] + new + line[place + len(new) :])
        except TraceError:
            continue
        assert from_line(to_line(found)) == found or "nan" in repr(found)


def test_lone_surrogates_of_a_trace_stay_json() -> None:
    line = to_line(STEP).replace('"text":" fox"', '"text":"\\ud800"')
    out = io.BytesIO()
    step = from_line(line)
    assert isinstance(step, Step)
    JsonlView(out).show(RUN, [step, Finish(0, "eos", "", Totals())])
    assert json.loads(out.getvalue().split(b"\n")[1])["text"] == "\ud800"
    PipeView(io.BytesIO(), echo=False).show(RUN, [step, Finish(0, "eos", "", Totals())])

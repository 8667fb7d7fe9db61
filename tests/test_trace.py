"""Records survive the trace; whatever else a trace file holds is refused with its line."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any, get_args

import pytest
from described_runs import RUNS
from hypothesis import given, settings
from hypothesis import strategies as st

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
from tokenglass.model.runs.run import SCHEMA_VERSION, EngineSettings, Run
from tokenglass.model.runs.trace import from_line, read, to_line
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.sampling.parameters import SamplingParameters

NUMBER = st.integers(0, 2**63)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text()  # no lone surrogates: they are not UTF-8
PIECE = st.binary(max_size=6) | st.text(max_size=3).map(str.encode)

candidates = st.builds(
    Candidate,
    token_id=NUMBER,
    piece=PIECE,
    logprob=FLOAT,
    prob=st.none() | FLOAT,
    removed_by=st.none() | TEXT,
    moved=st.dictionaries(TEXT, FLOAT, max_size=2).map(lambda moved: tuple(moved.items())),
)
choices = st.builds(
    Choice,
    position=NUMBER,
    token_id=st.none() | NUMBER,
    piece=PIECE,
    logprob=st.none() | FLOAT,
    prob=st.none() | FLOAT,
    rank=st.none() | NUMBER,
    entropy=st.none() | FLOAT,
    draw=st.none() | FLOAT,
    candidates=st.lists(candidates, max_size=3).map(tuple),
    status=st.sampled_from(get_args(Status)),
)
states = st.lists(st.builds(StateUsage, TEXT, NUMBER), max_size=2).map(tuple)
caches = st.builds(CacheUsage, *[NUMBER] * (len(dataclasses.fields(CacheUsage)) - 1), st.none() | states)
flows = st.lists(st.dictionaries(TEXT, FLOAT | TEXT | st.none(), max_size=2), max_size=2).map(tuple)
steps = st.builds(
    Step,
    index=NUMBER,
    forward=NUMBER,
    sequence=NUMBER,
    phase=st.sampled_from(get_args(Phase)),
    num_input_tokens=NUMBER,
    choices=st.lists(choices, max_size=3).map(tuple),
    text=TEXT,
    cache=st.none() | caches,
    seconds=FLOAT,
    parent=st.none() | NUMBER,
    rewound_to=st.none() | NUMBER,
    block=st.none() | st.builds(Block, NUMBER, NUMBER),
    flow=st.none() | flows,
)
totals = st.builds(Totals, NUMBER, NUMBER, NUMBER, FLOAT, NUMBER, FLOAT, NUMBER)
finishes = st.builds(Finish, NUMBER, st.sampled_from(get_args(Reason)), TEXT, totals)
records = steps | finishes | RUNS

CANDIDATE = Candidate(3, b" fox", -1.5, 0.25)
CHOICE = Choice(7, 3, b" fox", -1.5, 0.25, 2, 3.5, 0.125, (CANDIDATE,))
STEP = Step(0, 0, 0, "decode", 1, (CHOICE,), " fox", CacheUsage(8, 64, 64, 8, 64, 1, 0), 0.5)
REQUEST = Request((1, 2), 1, SamplingParameters(top_k=5))
RUN = Run("tiny", "a", "b", "The", REQUEST, engine=EngineSettings("native", "float32"), versions={"torch": "2"})


@given(record=records)
def test_a_record_survives_its_line(record: Run | Step | Finish) -> None:
    line = to_line(record)
    assert "\n" not in line
    assert from_line(line) == record
    json.loads(line, parse_constant=pytest.fail)  # neither NaN nor Infinity


@settings(max_examples=40)
@given(records=st.lists(records, max_size=4))
def test_a_whole_trace_survives(records: list[Run | Step | Finish]) -> None:
    assert list(read([to_line(record) + "\n" for record in records])) == records


def test_a_piece_that_is_not_utf8_has_its_bytes_beside_it() -> None:
    broken = dataclasses.replace(STEP, choices=(dataclasses.replace(CHOICE, piece=b"\xe6\x97"),))
    (choice,) = json.loads(to_line(broken))["choices"]
    assert (choice["piece"], choice["bytes"]) == ("\ufffd", [0xE6, 0x97])
    assert "bytes" not in choice["candidates"][0]


def test_what_moved_a_candidate_is_an_object_and_absent_where_nothing_did() -> None:
    moved = dataclasses.replace(CANDIDATE, moved=(("repetition-penalty", -0.25), ("dry", -1.5)))
    line = to_line(dataclasses.replace(STEP, choices=(dataclasses.replace(CHOICE, candidates=(CANDIDATE, moved)),)))
    first, second = json.loads(line)["choices"][0]["candidates"]
    assert "moved" not in first
    assert second["moved"] == {"repetition-penalty": -0.25, "dry": -1.5}
    assert from_line(line).choices[0].candidates == (CANDIDATE, moved)
    with pytest.raises(TraceError, match=r"Candidate\.moved is \[1\], which does not fit"):
        from_line(line.replace('{"repetition-penalty":-0.25,"dry":-1.5}', "[1]"))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_null(number: float) -> None:
    odd = dataclasses.replace(CANDIDATE, logprob=number, prob=number)
    line = to_line(dataclasses.replace(STEP, choices=(dataclasses.replace(CHOICE, candidates=(odd,)),)))
    content = json.loads(line)["choices"][0]["candidates"][0]
    assert (content["logprob"], content["prob"]) == (None, None)
    (candidate,) = from_line(line).choices[0].candidates
    assert math.isnan(candidate.logprob)
    assert candidate.prob is None


def line_with(record: Run | Step | Finish, **fields: Any) -> str:
    return json.dumps({**json.loads(to_line(record)), **fields})


def within(record: Run, part: str, **fields: Any) -> str:
    """The line with other fields in one of its objects."""
    content = json.loads(to_line(record))
    return json.dumps({**content, part: {**content[part], **fields}})


def test_unknown_fields_are_ignored_everywhere() -> None:
    choice = {**json.loads(to_line(STEP))["choices"][0], "new": 1}
    assert from_line(line_with(STEP, choices=[choice], newer={"a": []})) == STEP
    assert from_line(line_with(RUN, newer=1)) == RUN
    assert from_line(within(RUN, "request", newer=[1])) == RUN


def test_fields_with_a_default_may_be_left_out() -> None:
    content = json.loads(to_line(STEP))
    for field in ("parent", "rewound_to", "block", "flow"):
        del content[field]
    assert from_line(json.dumps(content)) == STEP
    short = {
        "record": "run",
        "version": SCHEMA_VERSION,
        "model": "m",
        "prompt": "p",
        "request": {"prompt_ids": [1], "seed": 2},
    }
    record = from_line(json.dumps({**short, "model_fingerprint": "a", "tokenizer_fingerprint": "b"}))
    assert record == Run("m", "a", "b", "p", Request((1,), 2))


def test_every_setting_of_a_run_comes_back_as_what_decoding_takes() -> None:
    request = Request(
        prompt_ids=(5, 6),
        seed=2**64 - 1,
        sampling=SamplingParameters(
            temperature=0.5, dry_sequence_breakers=(7,), logit_bias=(((1, 2), -0.5),), samplers=("temperature", "top-k")
        ),
        eos_token_ids=frozenset({3, 1}),
        max_seconds=0.5,
        stops=("The end",),
        bans=("fox",),
        constraint=Constraint("choice", ("yes", "no")),
        negative_ids=(9,),
        use_cache=False,
    )
    run = dataclasses.replace(RUN, request=request, negative_prompt="sad", mode=ModeSettings("parallel", passes=4))
    line = to_line(run)
    assert json.loads(line)["request"]["eos_token_ids"] == [1, 3]
    record = from_line(line)
    assert isinstance(record, Run)
    assert record.request == request
    assert record == run


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, "1", None, [1]])
def test_an_unknown_version_is_refused_whatever_else_it_holds(version: object) -> None:
    with pytest.raises(TraceError, match="is unknown; this program reads version 2"):
        from_line(json.dumps({"record": "run", "version": version, "entirely": "different"}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "not a JSON line"),
        ("garbage", "not a JSON line"),
        ("[" * 100_000, "not a JSON line"),
        ("[]", "unknown record None"),
        ("{}", "unknown record None"),
        ('{"record": "dance"}', "unknown record 'dance'; expected run, step, finish"),
        ('{"record": ["step"]}', "unknown record"),
        ('{"record": "finish"}', "Finish without sequence, reason, text, totals"),
        (line_with(STEP, index="0"), "Step.index is '0', which does not fit"),
        (line_with(STEP, index=True), "Step.index is True"),
        (line_with(STEP, phase="dreaming"), "Step.phase is 'dreaming'"),
        (line_with(STEP, choices=5), "Step.choices is 5"),
        (line_with(STEP, choices=[5]), "expected an object for Choice, found int"),
        (line_with(STEP, cache=[]), "expected an object for CacheUsage, found list"),
        (line_with(STEP, flow=[{"a": []}]), "Step.flow is"),
        (
            line_with(STEP, choices=[{**json.loads(to_line(STEP))["choices"][0], "piece": 3}]),
            "piece is 3; expected text",
        ),
        (within(RUN, "request", prompt_ids=["1"]), "Request.prompt_ids is '1'"),
        (within(RUN, "request", prompt_ids=[]), "Request: the prompt is empty"),
        (within(RUN, "request", sampling={"temperature": "hot"}), "SamplingParameters.temperature is 'hot'"),
        (within(RUN, "request", sampling={"temperature": -1}), "SamplingParameters: temperature is -1.0; expected"),
        (within(RUN, "request", constraint={"name": "haiku"}), "Constraint.name is 'haiku'"),
        (within(RUN, "search", beams=0), "Search: num_samples is 1 and beams 0; expected 1 or more"),
        (within(RUN, "engine", threads=[2]), "EngineSettings.threads is"),
        (line_with(RUN, mode="parallel"), "expected an object for ModeSettings, found str"),
        (line_with(RUN, versions={"a": 1}), "Run.versions is 1"),
    ],
)
def test_a_line_that_is_not_a_record_is_refused_with_its_number(line: str, message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        list(read([to_line(RUN), line]))
    assert str(caught.value).startswith("line 2: trace: ")
    assert len(str(caught.value).splitlines()) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    record=st.sampled_from([STEP, RUN, Finish(0, "eos", "", Totals())]),
    changes=st.dictionaries(
        st.sampled_from([*(f.name for kind in (Step, Run, Finish) for f in dataclasses.fields(kind))]), JSON, max_size=3
    ),
)
def test_any_json_line_is_read_or_refused(record: Run | Step | Finish, changes: dict[str, Any]) -> None:
    try:
        found = from_line(line_with(record, **changes))
    except TraceError:
        return
    assert type(found) is type(record)


@settings(max_examples=40)
@given(parts=st.lists(steps, max_size=4))
def test_totals_are_sums_over_the_steps(parts: list[Step]) -> None:
    parts = [dataclasses.replace(step, rewound_to=None) for step in parts]
    total = Totals()
    for step in parts:
        total = total.plus(step)
    open_ended = ("rejected", "guessed", "pruned", "masked")
    settled = [sum(c.token_id is not None and c.status not in open_ended for c in step.choices) for step in parts]
    prefills = [step for step in parts if step.phase == "prefill"]
    assert total.forwards == len(parts)
    assert total.new_tokens == sum(settled)
    assert total.positions_computed == sum(step.num_input_tokens for step in parts)
    assert total.prefill_tokens == sum(step.num_input_tokens for step in prefills)
    assert total.decode_tokens == sum(n for n, step in zip(settled, parts, strict=True) if step.phase != "prefill")


def test_rates_are_tokens_over_seconds_and_nothing_is_invented_without_time() -> None:
    prefill = dataclasses.replace(STEP, phase="prefill", num_input_tokens=30, seconds=2.0)
    totals = Totals().plus(prefill).plus(STEP).plus(STEP)
    assert (totals.prefill_rate, totals.decode_rate) == (15.0, 2.0)
    assert (Totals().prefill_rate, Totals().decode_rate) == (None, None)


def test_records_parameters_and_the_draw_do_not_import_torch() -> None:
    modules = "runs.trace, errors, config.config, checkpoint.store, sampling.draw, decoding.request, loading"
    imports = ", ".join(f"tokenglass.model.{name}" for name in modules.split(", "))
    code = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

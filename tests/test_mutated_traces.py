"""Two thousand traces that somebody spoiled: each is shown, or refused in one clear line."""

from __future__ import annotations

import contextlib
import io
import json
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
import scripted_run
from test_hostile_traces import NASTY, assert_harmless

from tokenglass.cli.app import explain
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.views.live import LiveView
from tokenglass.cli.views.several import Counted, SeveralPipe
from tokenglass.model.errors import ParameterError, TraceError
from tokenglass.model.measuring.difference import compare_texts
from tokenglass.model.runs.playback import Texts, at_speed, end_each, split_runs, unsure_stretches
from tokenglass.model.runs.trace import to_line
from tokenglass.model.runs.trace_reader import TraceReader
from tokenglass.model.runs.what_if import what_if

NEVER = threading.Event()
LINES = [json.loads(to_line(record)) for record in (scripted_run.run(), *scripted_run.records(scripted_run.STORY[:4]))]
VALUES: tuple[Any, ...] = (None, True, -1, 2**70, 1e308, -0.5, "", NASTY, [], {}, [[]], {"a": None}, "x" * 100_000)
BYTES = (b"", b"\x00", b"\xff", b'"', b"{", b"]", b"\n", b"1e999", b"NaN", b"\\ud800")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every list or object with each of its indices or keys."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [place for key, item in inner for place in ((value, key), *places(item))]


def changed_field(rng: random.Random) -> bytes:
    lines = json.loads(json.dumps(LINES))
    holder, key = rng.choice(places(lines[rng.randrange(len(lines))]))
    if isinstance(holder, dict) and rng.random() < 0.4:
        del holder[key]
    else:
        holder[key] = rng.choice(VALUES)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def changed_bytes(rng: random.Random) -> bytes:
    content = b"".join(json.dumps(line).encode() + b"\n" for line in LINES)
    place = rng.randrange(len(content))
    return content[:place] + rng.choice(BYTES) + content[place + rng.randrange(12) :]


def cut(rng: random.Random) -> bytes:
    content = b"".join(json.dumps(line).encode() + b"\n" for line in LINES)
    return content[: rng.randrange(len(content))]


def changed_lines(rng: random.Random) -> bytes:
    """Lines that are missing, doubled or in another order."""
    lines = [json.dumps(line).encode() + b"\n" for line in rng.choices(LINES, k=rng.randrange(1, 9))]
    return b"".join(lines)


def show(content: bytes) -> str:
    """What all that replay does with a trace writes."""
    out, screen = io.BytesIO(), io.StringIO()
    console = make_console(screen, color="never", environ={"TERM": "xterm"})
    for view in (Counted(SeveralPipe(out)), LiveView(console)):
        for run, records in split_runs(TraceReader(io.BytesIO(content), is_file=True)):
            view.show(run, end_each(at_speed(records, float("inf"), NEVER), NEVER))
    texts = Texts()
    for _, records in split_runs(TraceReader(io.BytesIO(content), is_file=True)):
        for record in records:
            if hasattr(record, "choices"):
                texts.add(record)
    list(unsure_stretches(texts, 0.5))
    list(compare_texts(*[texts.choices.get(0, [])] * 2))
    for run, records in split_runs(TraceReader(io.BytesIO(content), is_file=True)):
        with contextlib.suppress(ParameterError):
            list(what_if(run, records, run.request.sampling.replace(temperature=0.5)))
    return screen.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("change", [changed_field, changed_bytes, cut, changed_lines])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_spoiled_trace_is_shown_or_refused_in_one_clear_line(change: Callable[..., bytes], seed: int) -> None:
    rng, refused = random.Random(seed), 0
    for _ in range(250):
        content = change(rng)
        try:
            assert_harmless(show(content))
        except TraceError as error:
            refused += 1
            code, line = explain(error)
            assert code == 1
            assert "trace" in line
            assert "internal error" not in line
            assert len(line) < 500
            assert "\n" not in line
            assert_harmless(line)
    assert refused > 20


def test_a_huge_line_and_another_version_are_refused_in_one_clear_line() -> None:
    run, step = (json.dumps(line).encode() for line in LINES[:2])
    huge = step.replace(b'"text": ', b'"text": "' + b"x" * 2**24 + b'", "more": ')
    newer = run.replace(b'"version": 2', b'"version": 3')
    for content, words in ((run + b"\n" + huge, "longer than"), (newer, "version 3")):
        with pytest.raises(TraceError, match=words):
            show(content)

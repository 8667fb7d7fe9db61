"""The README's picture is drawn from its trace, and its trace is what the program writes."""

from __future__ import annotations

from picture import PICTURE, TRACE, draw, fresh_run

from tokenglass.model.records.steps import Step
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace import read

SURE = 20  # records: later, another processor's rounding may have drawn another token


def test_the_picture_is_what_its_trace_shows() -> None:
    assert draw(TRACE.read_text().splitlines()) == PICTURE.read_text(), "run: python tests/picture.py"


def test_the_trace_is_a_real_run_with_these_numbers() -> None:
    records = list(read(TRACE.read_text().splitlines()))
    fresh_records = list(read(fresh_run().decode().splitlines()))
    assert isinstance(records[0], Run)
    assert isinstance(fresh_records[0], Run)
    assert records[0].model_fingerprint == fresh_records[0].model_fingerprint, "run: python tests/picture.py"
    for old, new in zip(records[1:SURE], fresh_records[1:SURE], strict=True):
        assert isinstance(old, Step)
        assert isinstance(new, Step)
        assert (old.text, old.cache) == (new.text, new.cache)
        for before, after in zip(old.choices, new.choices, strict=True):
            assert (before.token_id, before.rank, before.draw) == (after.token_id, after.rank, after.draw)
            assert abs(before.logprob - after.logprob) < 1e-4
            assert abs(before.prob - after.prob) < 1e-4

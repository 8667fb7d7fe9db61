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
    kept = list(read(TRACE.read_text().splitlines()))
    made = list(read(fresh_run().decode().splitlines()))
    assert isinstance(kept[0], Run)
    assert isinstance(made[0], Run)
    assert kept[0].model_fingerprint == made[0].model_fingerprint, "run: python tests/picture.py"
    for old, new in zip(kept[1:SURE], made[1:SURE], strict=True):
        assert isinstance(old, Step)
        assert isinstance(new, Step)
        assert (old.text, old.cache) == (new.text, new.cache)
        for told, found in zip(old.choices, new.choices, strict=True):
            assert (told.token_id, told.rank, told.draw) == (found.token_id, found.rank, found.draw)
            assert abs(told.logprob - found.logprob) < 1e-4
            assert abs(told.prob - found.prob) < 1e-4

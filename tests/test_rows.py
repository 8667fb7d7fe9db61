"""The rows of a pass choose together what each would choose alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_parts import compiled
from test_batch import Given, texts_of
from test_draw_at_once import masks, piece, samplers

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.batch import Batch
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.samples import decode_samples
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.native_engine.engine import NativeEngine
from tokenglass.model.native_engine.measure import KernelMeasure
from tokenglass.model.records.steps import Choice, Record, Step
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.sampling.context import Mask
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.raw import DrawRequest, TokenDraw
from tokenglass.model.sampling.sampler import Sampler


@pytest.fixture(scope="module")
def tale() -> LoadedModel:
    return load_model(bundled_folder(), backend="native")


@settings(max_examples=100)
@given(
    each=st.lists(samplers(), max_size=9),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=9, max_size=9),
    scale=st.floats(0.1, 10),
    bad=st.sampled_from([None, math.nan, math.inf]),
    scattered=st.booleans(),
    masks=masks(),
)
def test_several_positions_are_drawn_from_as_one_by_one(
    tale: LoadedModel,
    each: list[Sampler],
    draws: list[float],
    scale: float,
    bad: float | None,
    masks: tuple[Mask, ...],
    *,
    scattered: bool,
) -> None:
    rows = np.random.default_rng(1).normal(scale=scale, size=(9, 3000)).astype(np.float32)
    if bad is not None:
        rows[1, 7] = bad
    logits = [row[::2] if scattered and number == 2 else row for number, row in enumerate(rows)]
    requests: list[DrawRequest] = []
    for sampler, row, draw in zip(each, logits, draws, strict=False):
        assert sampler.drawer is not None
        requests.append(DrawRequest(sampler.drawer, row, draw, masks))
    alone = [each.drawer(each.logits, each.draw, each.masks) for each in requests]
    assert tale.engine.draw_each(requests) == alone


def test_another_engines_drawer_is_asked_by_itself(tale: LoadedModel) -> None:
    token = TokenDraw(1.0, 0, 1, [(5, 0, -0.1, 1.0)], (None,))
    native = Sampler(SamplingParameters(), piece, 5, KernelMeasure(compiled())).drawer
    assert native is not None
    row = np.zeros(100, np.float32)
    requests = [DrawRequest(lambda *_: token, row, 0.5), DrawRequest(native, row, 0.5)]
    assert tale.engine.draw_each(requests) == [token, native(row, 0.5, ())]


def free_and_masked(tale: LoadedModel) -> list[Request]:
    """Texts that the sampler alone decides, and after these others that more has a say in."""
    free: list[dict[str, Any]] = [
        {"top": 5},
        {"sampling": SamplingParameters(temperature=0.0), "top": 3},
        {"sampling": SamplingParameters(temperature=1.3, top_k=20, min_p=0.01), "stops": ("and",)},
    ]
    masked: list[dict[str, Any]] = [
        {"ignore_eos": True, "top": 5},
        {"min_new_tokens": 9},
        {"constraint": Constraint("regex", ("[a-z ,]+[.]",)), "top": 5},
        {"healed": b" th"},
        {"sampling": SamplingParameters(repetition_penalty=1.2), "top": 5},
        {"bans": (" the", "a")},  # from where one is taken back
    ]
    prompt, ends = tale.tokenizer.encode("Once upon a time there was a"), tale.eos_token_ids
    return [
        Request(prompt, seed, **{"max_new_tokens": 16, "eos_token_ids": ends, **options})
        for seed, options in enumerate([*free, *masked])
    ]


def choices_of(records: Sequence[Record], number: int = 0) -> list[Choice]:
    steps = [record for record in records if isinstance(record, Step) and record.sequence == number]
    return [choice for step in steps for choice in step.choices]


def test_texts_of_every_kind_have_the_choices_that_they_have_alone(tale: LoadedModel) -> None:
    requests = free_and_masked(tale)
    records = [*Batch(tale.engine, Given([*texts_of(tale, requests)]), 9, threading.Event(), {}).records()]
    for number, request in enumerate(requests):
        assert choices_of(records, number) == choices_of([*decode(Job(tale.engine, tale.tokenizer, request))])


def test_texts_whose_masks_only_remove_tokens_are_drawn_together(
    tale: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(tale.engine, NativeEngine)
    counts, draw_each = [], tale.engine.draw_each

    def count(requests: Sequence[DrawRequest]) -> list[TokenDraw | None]:
        counts.append(len(requests))
        return draw_each(requests)

    monkeypatch.setattr(tale.engine, "draw_each", count)
    requests = free_and_masked(tale)[:6]
    records = [*Batch(tale.engine, Given([*texts_of(tale, requests)]), 6, threading.Event(), {}).records()]
    assert all(len(choices_of(records, number)) > 2 for number in range(3))
    assert counts[0] == 5


def test_what_each_sample_is_made_of_is_kept_where_somebody_asks(tale: LoadedModel) -> None:
    choices: list[Choice] = []
    job = Job(tale.engine, tale.tokenizer, free_and_masked(tale)[0], keep=lambda choice, *_: choices.append(choice))
    records = [*decode_samples(job, 3)]
    assert sorted(choices, key=repr) == sorted(
        [c for number in range(3) for c in choices_of(records, number)], key=repr
    )

"""Descriptions of runs, made at random, as hypothesis wants them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from hypothesis import strategies as st

from tokenglass.model.decoding.modes import ModeSettings
from tokenglass.model.decoding.request import Request
from tokenglass.model.runs.run import EngineSettings, Run, Search
from tokenglass.model.sampling.constraints import Constraint, ConstraintName
from tokenglass.model.sampling.parameters import SAMPLERS, SETTINGS, SamplingParameters
from tokenglass.model.sampling.settings import Number

TEXT = st.text(max_size=8)  # no lone surrogates: they are not UTF-8
SOME = st.text(min_size=1, max_size=8)
NUMBER = st.integers(0, 2**63)
COUNT = st.integers(1, 2**63)
IDS = st.lists(NUMBER, max_size=3).map(tuple)
RATE = st.none() | st.floats(0, 1)


def ranged(number: Number) -> st.SearchStrategy[float]:
    """Any value that a parameter may have."""
    return st.integers(int(number.least), 2**53) if number.is_whole else st.floats(number.least, number.most)


def constraints() -> st.SearchStrategy[Constraint]:
    some = [st.builds(Constraint, st.just(name), st.tuples(SOME)) for name in get_args(ConstraintName)]
    return st.one_of(*some, st.just(Constraint("json")))


SAMPLING = st.builds(
    SamplingParameters,
    **{name: ranged(setting) for name, setting in SETTINGS.items() if isinstance(setting, Number)},
    dry_sequence_breakers=IDS,
    logit_bias=st.lists(st.tuples(st.tuples(NUMBER, NUMBER), st.floats(-1e3, 1e3)), max_size=2).map(tuple),
    samplers=st.lists(st.sampled_from(SAMPLERS), unique=True).map(tuple),
)
REQUESTS = st.builds(
    Request,
    prompt_ids=st.lists(NUMBER, min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 2**64 - 1),
    sampling=SAMPLING,
    max_new_tokens=COUNT,
    eos_token_ids=st.frozensets(NUMBER, max_size=3),
    min_new_tokens=st.just(0),
    ignore_eos=st.booleans(),
    max_seconds=st.none() | st.floats(1e-3, 1e300),
    stops=st.lists(SOME, max_size=2).map(tuple),
    bans=st.lists(SOME, max_size=2).map(tuple),
    negative_ids=IDS,
    top=NUMBER,
    prefill_chunk=COUNT,
    use_cache=st.booleans(),
)
OPENINGS = st.fixed_dictionaries({"healed": st.binary(max_size=4)}) | st.fixed_dictionaries(
    {"constraint": constraints()}
)
RUNS = st.builds(
    Run,
    model=TEXT,
    model_fingerprint=TEXT,
    tokenizer_fingerprint=TEXT,
    prompt=TEXT,
    request=st.builds(lambda request, opening: replace(request, **opening), REQUESTS, OPENINGS),
    negative_prompt=st.none() | TEXT,
    search=st.builds(Search, COUNT, IDS, COUNT, st.floats(-100, 100), st.booleans()),
    mode=st.builds(ModeSettings, TEXT, COUNT, st.none() | COUNT, st.none() | COUNT, RATE, RATE, TEXT, st.none() | TEXT),
    engine=st.builds(EngineSettings, st.none() | TEXT, st.none() | TEXT, TEXT, st.none() | TEXT, st.none() | NUMBER),
    versions=st.dictionaries(TEXT, TEXT, max_size=2),
)

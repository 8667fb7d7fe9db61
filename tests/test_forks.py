"""Forks: the near-ties of a text, and what a greedy run from each of them writes."""

from __future__ import annotations

from dataclasses import replace

import native_parts
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_run import choice
from shell import assert_one_line_error, generate

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.forks import LENGTH, find_forks, near_ties
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Choice, Step
from tokenglass.model.sampling.parameters import SamplingParameters

PROMPT = "Once upon a time there was a fox"
COUNT = 3


@pytest.fixture(scope="module", params=["native", "torch"])
def tale(request: pytest.FixtureRequest) -> LoadedModel:
    if request.param == "native":
        native_parts.compiled()
    return load_model(bundled_folder(), backend=request.param, threads=1)


def run(tale: LoadedModel, job: Job) -> list[Choice]:
    return [choice for record in decode(job) if isinstance(record, Step) for choice in record.choices]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_fork_goes_on_as_a_greedy_run_from_there(tale: LoadedModel, temperature: float) -> None:
    sampling = SamplingParameters(temperature=temperature, repetition_penalty=1.1)
    request = Request(tale.tokenizer.encode(PROMPT), 5, sampling, max_new_tokens=24, eos_token_ids=tale.eos_token_ids)
    cache = tale.engine.new_cache(planned_length=80)
    job = Job.of(tale, request, cache=cache)
    choices = run(tale, job)
    held = cache.rows[0].token_ids[:]
    forks = find_forks(job, cache, choices, COUNT)
    assert len(forks) == COUNT
    assert [fork.tie.choice.position for fork in forks] == sorted(fork.tie.choice.position for fork in forks)
    assert len(cache.rows) == 1
    assert cache.rows[0].token_ids == held
    token_ids = [choice.token_id for choice in choices if choice.token_id is not None]
    for fork in forks:
        start = fork.tie.choice.position - len(request.prompt_ids)
        assert fork.other[0] == fork.tie.other.token_id != token_ids[start] == fork.taken[0]
        assert fork.taken == tuple(token_ids[start : start + len(fork.taken)])
        # The oracle: the text up to there is a prompt; what it repeats counts as new text does with this penalty
        prompt = (*request.prompt_ids, *token_ids[:start], fork.other[0])
        alone = replace(request, prompt_ids=prompt, sampling=sampling.replace(temperature=0.0), max_new_tokens=LENGTH)
        expected = [choice.token_id for choice in run(tale, Job.of(tale, alone))]
        assert [*fork.other[1:]] == expected


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 6))
def test_near_ties_are_the_closest_and_in_the_texts_order(kinds: list[int], count: int) -> None:
    choices = [replace(choice(b"x", kind), position=place) for place, kind in enumerate(kinds)]
    ties = near_ties(choices, count, greedy=False)
    every = near_ties(choices, len(choices), greedy=False)
    assert [tie.choice.position for tie in ties] == sorted(tie.choice.position for tie in ties)
    assert len(ties) == min(count, len(every))
    left_out = [tie.closeness for tie in every if tie not in ties]
    assert min((tie.closeness for tie in ties), default=1) >= max(left_out, default=0)
    for tie in every:
        assert tie.other.prob
        assert tie.other.token_id != tie.choice.token_id
        assert 0 < tie.closeness <= 1


def test_a_forced_token_is_no_tie() -> None:
    assert not near_ties([replace(choice(b"x"), status="forced")], 3, greedy=False)
    assert not near_ties([replace(choice(b"x"), candidates=())], 3, greedy=False)


def test_the_command_lists_them_below_the_text_and_writes_the_same_text() -> None:
    options = (PROMPT, "-n", "16", "--seed", "3", "--quiet")
    plain, forked = generate(*options), generate(*options, "--forks", "2")
    assert forked.stdout == plain.stdout
    lines = forked.stderr.decode().splitlines()
    assert len(lines) == 6
    for place in (0, 3):
        assert lines[place].startswith("fork at token ")
        assert all(line.lstrip()[0].isdigit() for line in lines[place + 1 : place + 3])


@pytest.mark.parametrize("option", [("--no-cache",), ("--num-samples", "2"), ("--negative", "No", "--guidance", "2")])
def test_forks_need_one_text_over_a_cache(option: tuple[str, ...]) -> None:
    assert_one_line_error(generate(PROMPT, "--forks", "2", *option), 2, "--forks looks ahead")

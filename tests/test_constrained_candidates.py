"""Under a constraint a choice shows what could be drawn, beside what the model would have liked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import generate

from tokenglass.cli.widgets.candidates import CandidateTable
from tokenglass.cli.widgets.draw_strip import stretches
from tokenglass.cli.widgets.widget import UNICODE
from tokenglass.model.records.codec import from_dict, to_dict
from tokenglass.model.records.steps import Choice, Step
from tokenglass.model.runs.trace_writer import shorten
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.sampler import Sampler

VOCAB = 700
SETTINGS = {
    "sampled": SamplingParameters(temperature=0.7, top_p=1.0),
    "greedy": SamplingParameters(temperature=0.0),
    "top-k and a penalty": SamplingParameters(temperature=1.5, top_k=4, top_p=1.0, repetition_penalty=1.3),
    "min-p": SamplingParameters(temperature=1.0, min_p=0.2, top_p=1.0),
}


def choose(
    parameters: SamplingParameters, seed: int, top: int, kept: int, *, has_mask: bool = True
) -> tuple[Choice, np.ndarray, np.ndarray]:
    """A choice among random logits of which a constraint leaves `kept`; raw and final probabilities."""
    random = np.random.default_rng(seed)
    logits = (3 * random.standard_normal(VOCAB)).astype(np.float32)
    allowed = np.zeros(VOCAB, np.bool_)
    allowed[random.choice(VOCAB, kept, replace=False)] = True
    masks = (Mask("regex", allowed),) if has_mask else ()
    context = Context(tuple(random.integers(0, VOCAB, 20).tolist()), 5, seed, masks=masks)
    sampler = Sampler(parameters, lambda token_id: b"%d" % token_id, top)
    both = sampler.distribution(logits, context)
    return sampler.choose(logits, context), both.raw, both.final


@pytest.mark.parametrize("name", SETTINGS)
@given(seed=st.integers(0, 10**6), top=st.integers(0, 9), kept=st.integers(1, VOCAB))
def test_the_likeliest_to_be_drawn_are_there_with_their_ranks(name: str, seed: int, top: int, kept: int) -> None:
    choice, raw, final = choose(SETTINGS[name], seed, top, kept)
    by_raw = np.lexsort((np.arange(VOCAB), -raw)).tolist()
    by_final = [k for k in np.lexsort((np.arange(VOCAB), -final)).tolist() if final[k] > 0]
    token_ids = [candidate.token_id for candidate in choice.candidates]
    assert token_ids[:top] == by_raw[:top]
    assert set(by_final[:top]) <= set(token_ids)
    assert choice.token_id in token_ids
    assert len(token_ids) <= 2 * top + 1
    for candidate in choice.candidates:
        assert candidate.rank == by_raw.index(candidate.token_id) + 1
        assert candidate.prob == pytest.approx(final[candidate.token_id], abs=1e-9)
    without_chosen = [k for k in token_ids if k != choice.token_id]
    assert without_chosen == sorted(without_chosen, key=by_raw.index)


@pytest.mark.parametrize("name", SETTINGS)
@given(seed=st.integers(0, 10**6), kept=st.integers(1, VOCAB))
def test_fewer_candidates_are_those_that_fewer_would_have_been(name: str, seed: int, kept: int) -> None:
    def step(top: int) -> Step:
        choice, *_ = choose(SETTINGS[name], seed, top, kept)
        return Step(0, 0, 0, "decode", 1, (choice,), "", None, 0.0)

    assert shorten(step(9), 3) == step(3)
    assert from_dict(Step, json.loads(json.dumps(to_dict(step(3))))) == step(3)


def test_without_a_constraint_nothing_changes_in_json() -> None:
    choice, *_ = choose(SETTINGS["sampled"], 1, 5, 9, has_mask=False)
    assert not choice.is_constrained
    assert len(choice.candidates) <= 6
    assert all("rank" not in candidate for candidate in to_dict(choice)["candidates"])


@given(seed=st.integers(0, 10**6), kept=st.integers(2, VOCAB), width=st.sampled_from([40, 80, 120]))
def test_the_table_shows_what_could_be_drawn_above_what_was_cut(seed: int, kept: int, width: int) -> None:
    choice, _, final = choose(SETTINGS["sampled"], seed, 5, kept)
    for limit in (1, 5, 20):
        shown = [choice.candidates[k] for k in CandidateTable(choice, limit).visible_indices()]
        cut = [candidate.removed_by is not None for candidate in shown]
        assert cut == sorted(cut)
        if limit > 5:
            assert {int(k) for k in np.argsort(-final)[: min(5, kept, limit)]} <= {each.token_id for each in shown}
    lines = ["".join(part.text for part in row) for row in CandidateTable(choice).rows(width, UNICODE)]
    assert sum("cut by regex" in line or " regex" in line for line in lines) == sum(
        candidate.removed_by == "regex" for candidate in choice.candidates
    )


@given(seed=st.integers(0, 10**6), kept=st.integers(2, 40))
def test_the_draw_falls_into_the_stretch_of_what_was_chosen(seed: int, kept: int) -> None:
    choice, _, final = choose(SETTINGS["sampled"], seed, 5, kept)
    assert choice.draw is not None
    hit = next(each for each in stretches(choice) if each.start <= choice.draw < each.end)
    assert hit.candidate is None or hit.candidate.token_id == choice.token_id
    if choice.token_id in np.argsort(-final)[:5]:
        assert hit.candidate is not None


def test_a_trace_with_more_candidates_changes_no_line_of_a_constrained_run(tmp_path: Path) -> None:
    for more in (("--temperature", "0"), ()):
        path = tmp_path / f"run{len(more)}.jsonl"
        arguments = (
            "The fox",
            "--regex",
            "[xqz]{3}[a-z ]+",
            "-n",
            "9",
            "--seed",
            "3",
            "--jsonl",
            "--candidates",
            "3",
            *more,
        )
        alone, with_trace = generate(*arguments), generate(*arguments, "--trace", str(path), "--trace-top", "8")
        choices = [[json.loads(line).get("choices") for line in run.stdout.splitlines()] for run in (alone, with_trace)]
        assert choices[0] == choices[1]
        first = choices[0][1][0]["candidates"]
        assert {"regex"} < {candidate.get("removed_by") for candidate in first}

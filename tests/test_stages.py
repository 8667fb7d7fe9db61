"""A choice unfolded: every number is the sampler's own, and more draws fall as the final distribution says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import chi_square
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_sampling import CHAINS, at, contexts, random_logits, sampler

from tokenglass.model.errors import NothingPossible
from tokenglass.model.records.steps import Choice
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.sampling.stages import ChoiceLog, KeptChoice


def keep_choice(
    logits: Any, parameters: SamplingParameters, context: Context, top: int = 5
) -> tuple[Choice, KeptChoice]:
    """A choice, and what the log has of it."""
    log = ChoiceLog(parameters)
    choice = Sampler(parameters, lambda token_id: b"<%d>" % token_id, top, keep=log.keep).choose(logits, context)
    entry = log.find(choice)
    assert entry is not None
    return choice, entry


def ids(choice: Choice) -> list[int]:
    return [candidate.token_id for candidate in choice.candidates]


@given(st.data(), random_logits(), CHAINS)
def test_the_first_stage_is_raw_and_the_last_is_final_whatever_the_chain(
    data: st.DataObject, logits: torch.Tensor, parameters: SamplingParameters
) -> None:
    context = data.draw(contexts(len(logits)))
    try:
        choice, entry = keep_choice(logits, parameters, context)
    except NothingPossible:
        return

    stages = entry.stages(ids(choice))
    first, last = stages[0], stages[-1]

    raw = [math.exp(candidate.logprob) for candidate in choice.candidates]
    assert first.probs == pytest.approx(raw, abs=1e-9)
    assert first.entropy == pytest.approx(choice.entropy, abs=1e-9)
    assert last.probs == pytest.approx([candidate.prob for candidate in choice.candidates], abs=1e-9)


@given(st.data(), random_logits(), CHAINS)
def test_each_stage_is_what_a_chain_that_ends_there_leaves(
    data: st.DataObject, logits: torch.Tensor, parameters: SamplingParameters
) -> None:
    context = data.draw(contexts(len(logits)))
    parameters = parameters.replace(temperature=parameters.temperature or 0.7)
    try:
        choice, entry = keep_choice(logits, parameters, context)
    except NothingPossible:
        return
    names = [processor.name for processor in sampler(parameters).chain]
    stages = entry.stages(ids(choice))
    assert [stage.name for stage in stages] == ["raw", *(mask.name for mask in context.masks), *names]

    for count, stage in enumerate(stages[1 + len(context.masks) :], start=1):
        shorter = sampler(parameters)
        shorter.chain = shorter.chain[:count]
        final = shorter.distribution(logits, context).final
        assert stage.probs == pytest.approx(final[ids(choice)].tolist(), abs=1e-9)
        assert stage.num_possible >= int(np.count_nonzero(final))
        assert stage.others == pytest.approx(max(0.0, 1 - final[ids(choice)].sum()), abs=1e-9)


def test_other_temperatures_are_what_a_run_at_them_would_sample_from() -> None:
    logits = torch.randn(400, generator=torch.Generator().manual_seed(5))
    parameters = SamplingParameters(temperature=0.8, top_p=0.9, top_k=30)
    choice, entry = keep_choice(logits, parameters, at(3))

    for temperature in (0.2, 0.8, 1.5):
        other = sampler(parameters.replace(temperature=temperature)).choose(logits, at(3))
        stage = entry.at_temperature(ids(other), temperature)
        assert stage.probs == pytest.approx([candidate.prob for candidate in other.candidates], abs=1e-12)
        assert stage.settings == f"{temperature:g}"
    assert entry.at_temperature(ids(choice), 0.8).probs == entry.stages(ids(choice))[-1].probs


def test_draws_fall_as_the_final_distribution_says_and_the_first_hundred_stay_the_first() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(5))
    choice, entry = keep_choice(logits, SamplingParameters(temperature=1.0, top_k=6), at(3), top=6)
    final = {candidate.token_id: candidate.prob or 0.0 for candidate in choice.candidates}

    hundred, many = entry.draw_again(100), entry.draw_again(5000)

    assert sum(hundred.values()) == 100
    assert set(many) <= set(final)
    assert all(count <= many[token_id] for token_id, count in hundred.items())
    assert not chi_square.is_rejected([many.get(token_id, 0) for token_id in final], list(final.values()))
    assert hundred == entry.draw_again(100)


def test_the_log_keeps_what_there_is_room_for_and_copies_what_is_used_again() -> None:
    parameters, logits = SamplingParameters(temperature=1.0), np.zeros(100, np.float32)
    log = ChoiceLog(parameters, nbytes=3 * logits.nbytes)
    token_ids, choices = [1, 2], []
    choosing = Sampler(parameters, bytes, keep=log.keep)
    for number in range(5):
        logits[:] = 0
        logits[number] = 9
        choices.append(choosing.choose(logits, Context(token_ids, 2, 1)))
        token_ids.append(number)

    entries = [log.find(choice) for choice in choices]
    assert [one is None for one in entries] == [True, True, False, False, False]
    for number, one in enumerate(entries[2:], start=2):
        assert one is not None
        assert one.stages([number])[0].probs[0] > 0.9
        assert len(one.context.token_ids) == 2 + number
    shorter = replace(choices[4], candidates=(), status="accepted")
    assert log.find(shorter) is log.find(choices[4])


def test_masks_are_stages_too_and_greedy_ends_with_one_token() -> None:
    context = at(2, masks=(Mask("ban", removed=(0,)),))
    _, entry = keep_choice(torch.tensor([3.0, 2.0, 1.0]), SamplingParameters(temperature=0.0), context)

    stages = entry.stages([0, 1, 2])

    assert [stage.name for stage in stages] == ["raw", "ban", "temperature"]
    assert stages[1].probs[0] == 0
    assert stages[1].num_possible == 2
    assert stages[2].probs == (0.0, 1.0, 0.0)

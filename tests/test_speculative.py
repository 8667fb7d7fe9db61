"""Guesses change how many passes a text takes, never the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.drafts import Draft, ModelDrafter, NgramDrafter, ParallelDrafter
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.decoding.speculative import decode_jacobi, decode_speculative
from tokenglass.model.engine.engine import Engine
from tokenglass.model.errors import ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish, Record, Step
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer

EOS = 0


class Oracle:
    """Guesses what is told, right or wrong."""

    def __init__(self, token_ids: list[int], prompt_length: int):
        self.token_ids = token_ids
        self.prompt_length = prompt_length

    def draft(self, sequence: Sequence, count: int) -> Draft:
        done = len(sequence.token_ids) - self.prompt_length
        return Draft(tuple(self.token_ids[done : done + count]))


@pytest.fixture(scope="module")
def engine(saved_checkpoint: Path) -> Engine:
    return load_model(saved_checkpoint).engine


def split_finish(records: Iterator[Record]) -> tuple[list[Step], Finish]:
    *steps, finish = records
    assert isinstance(finish, Finish)
    return [step for step in steps if isinstance(step, Step)], finish


def text_of(steps: list[Step], finish: Finish) -> str:
    return "".join(step.text for step in steps) + finish.text


def settled_ids(steps: list[Step], prompt_length: int) -> list[int]:
    ids: list[int] = []
    for step in steps:
        if step.rewound_to is not None:
            del ids[step.rewound_to - prompt_length :]
        ids += [c.token_id for c in step.choices if c.status not in ("rejected", "guessed") and c.token_id is not None]
    return ids


DRAFTERS: dict[str, Callable[[Job], Any]] = {
    "ngram": lambda job: NgramDrafter(),
    "parallel": ParallelDrafter,
    "the model itself": ModelDrafter,
    "jacobi": lambda job: None,
}


@pytest.mark.parametrize("name", DRAFTERS)
@settings(max_examples=15)
@given(data=st.data())
def test_the_text_and_the_choices_are_those_of_one_token_at_a_time(
    name: str, data: st.DataObject, engine: Engine, tokenizer: Tokenizer
) -> None:
    request = Request(
        prompt_ids=tokenizer.encode(data.draw(st.sampled_from(["The fox", "The fox and the fox", "a a a a a"]))),
        seed=data.draw(st.integers(0, 9)),
        sampling=data.draw(
            st.sampled_from(
                [
                    SamplingParameters(temperature=0),
                    SamplingParameters(temperature=0.7, top_k=3, top_p=1),
                    SamplingParameters(temperature=0, repetition_penalty=1.5),
                ]
            )
        ),
        max_new_tokens=data.draw(st.integers(1, 25)),
        eos_token_ids=frozenset({EOS}),
        stops=data.draw(st.sampled_from([(), ("e",)])),
        bans=data.draw(st.sampled_from([(), ("a",)])),
        prefill_chunk=3,
    )
    expected, end = split_finish(decode(Job(engine, tokenizer, request)))

    cache = engine.new_cache(planned_length=request.planned_length(engine.limit))
    count = data.draw(st.integers(1, 6))
    job = Job(engine, tokenizer, request, cache=cache, mask_id=1, draft_engine=engine)
    if name == "jacobi":
        records = decode_jacobi(job, count)
    else:
        drafter = DRAFTERS[name](job)
        records = decode_speculative(Job(engine, tokenizer, request, cache=cache), drafter, count)
    steps, finish = split_finish(records)

    size = len(request.prompt_ids)
    assert (settled_ids(steps, size), text_of(steps, finish), finish.reason) == (
        settled_ids(expected, size),
        text_of(expected, end),
        end.reason,
    )
    assert finish.totals.new_tokens == end.totals.new_tokens
    verifying = [step for step in steps if step.phase in ("verify", "jacobi")]
    assert len(verifying) <= sum(step.phase == "decode" for step in expected)


def test_right_guesses_are_accepted_all_at_once_with_one_token_more(engine: Engine, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("The fox")
    request = Request(prompt, 1, SamplingParameters(temperature=0), max_new_tokens=21)
    ids = settled_ids(split_finish(decode(Job(engine, tokenizer, request)))[0], len(prompt))

    cache = engine.new_cache()
    drafter = Oracle(ids, len(prompt))
    steps, _ = split_finish(decode_speculative(Job(engine, tokenizer, request, cache=cache), drafter, 4))

    assert [len(step.choices) for step in steps] == [1, 5, 5, 5, 5]
    assert [[c.status for c in step.choices] for step in steps[1:]] == [["accepted"] * 4 + ["sampled"]] * 4
    assert [step.num_input_tokens for step in steps[1:]] == [5] * 4


def test_after_a_wrong_guess_there_are_fewer_and_more_again_where_they_are_right(
    engine: Engine, tokenizer: Tokenizer
) -> None:
    prompt = tokenizer.encode("The fox")
    request = Request(prompt, 1, SamplingParameters(temperature=0), max_new_tokens=24)
    ids = settled_ids(split_finish(decode(Job(engine, tokenizer, request)))[0], len(prompt))
    drafter = Oracle([*ids[:2], ids[2] + 1, *ids[3:]], len(prompt))
    steps, _ = split_finish(decode_speculative(Job(engine, tokenizer, request, cache=engine.new_cache()), drafter, 8))

    verified = [[choice.status for choice in step.choices] for step in steps[1:]]
    assert verified[0] == ["accepted", "rejected", "sampled"]
    assert [step.num_input_tokens - 1 for step in steps[1:4]] == [8, 3, 7]
    assert verified[1:3] == [["accepted"] * 3 + ["sampled"], ["accepted"] * 7 + ["sampled"]]


def test_a_draft_that_is_short_and_right_does_not_make_the_next_one_shorter(
    engine: Engine, tokenizer: Tokenizer
) -> None:
    prompt = tokenizer.encode("The fox")
    request = Request(prompt, 1, SamplingParameters(temperature=0), max_new_tokens=24)
    ids = settled_ids(split_finish(decode(Job(engine, tokenizer, request)))[0], len(prompt))
    drafter = Oracle(ids, len(prompt))
    asked: list[int] = []

    class Short:
        def draft(self, sequence: Sequence, count: int) -> Draft:
            asked.append(count)
            return drafter.draft(sequence, 1 if len(asked) == 1 else count)

    steps, _ = split_finish(decode_speculative(Job(engine, tokenizer, request, cache=engine.new_cache()), Short(), 8))
    assert [step.num_input_tokens - 1 for step in steps[1:3]] == [1, 8]
    assert asked[:2] == [8, 8]


def test_a_wrong_guess_is_shown_before_the_token_that_was_taken(engine: Engine, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("The fox")
    request = Request(prompt, 1, SamplingParameters(temperature=0), max_new_tokens=6)
    ids = settled_ids(split_finish(decode(Job(engine, tokenizer, request)))[0], len(prompt))
    wrong = [*ids[:2], ids[2] + 1, *ids[3:]]

    cache = engine.new_cache()
    drafter = Oracle(wrong, len(prompt))
    steps, _ = split_finish(decode_speculative(Job(engine, tokenizer, request, cache=cache), drafter, 3))

    assert [(c.status, c.token_id) for c in steps[1].choices] == [
        ("accepted", ids[1]),
        ("rejected", ids[2] + 1),
        ("sampled", ids[2]),
    ]
    assert steps[1].choices[1].position == steps[1].choices[2].position
    assert cache.lengths[0] <= len(prompt) + len(ids)


@given(ids=st.lists(st.integers(0, 3), min_size=1, max_size=12), longest=st.integers(1, 4), count=st.integers(1, 5))
def test_an_ngram_guess_follows_the_longest_and_latest_earlier_place(
    tokenizer: Tokenizer, ids: list[int], longest: int, count: int
) -> None:
    sequence = Sequence(tokenizer, Request(tuple(ids), 1), limit=100)
    guess = list(NgramDrafter(longest).draft(sequence, count).token_ids)
    lengths = [
        (length, start)
        for length in range(1, min(longest, len(ids) - 1) + 1)
        for start in range(len(ids) - length)
        if ids[start : start + length] == ids[-length:]
    ]
    if not lengths:
        assert guess == []
    else:
        length, start = max(lengths)
        assert guess == ids[start + length : start + length + count]


def test_what_cannot_be_done_is_refused(engine: Engine, tokenizer: Tokenizer) -> None:
    with pytest.raises(ParameterError, match="mask token"):
        ParallelDrafter(Job(engine, tokenizer, Request((5, 6), 1), cache=engine.new_cache()))
    with pytest.raises(ParameterError, match="context"):
        ModelDrafter(Job(engine, tokenizer, Request((5,) * engine.limit, 1), draft_engine=engine))
    with pytest.raises(ParameterError, match="--draft-model"):
        ModelDrafter(Job(engine, tokenizer, Request((5, 6), 1)))
    request = Request((5, 6), 1, negative_ids=(5,))
    with pytest.raises(ParameterError, match="negative"):
        list(decode_jacobi(Job(engine, tokenizer, request, cache=engine.new_cache())))

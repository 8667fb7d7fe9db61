"""Beam search: the texts and scores of transformers, and records that tell where each beam came from and ended."""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch_parts import as_tensor

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.decoding.beam_search import BeamParameters
from tokenglass.model.decoding.beams import decode_beams
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.run_totals import RunTotals
from tokenglass.model.errors import EngineError, ParameterError, PromptError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish, Record, Step
from tokenglass.model.runs.trace import from_line, to_line
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

TALE = bundled_folder()
PROMPT = "Once upon a time there was a little fox"
GREEDY = SamplingParameters(temperature=0)


@pytest.fixture(scope="module")
def engine(saved_checkpoint: Path) -> TorchEngine:
    return load_model(saved_checkpoint).engine


@pytest.fixture(scope="module")
def tale() -> LoadedModel:
    return load_model(TALE)


@cache
def peer(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def request_of(prompt_ids: Sequence[int], **options: Any) -> Request:
    return Request(tuple(prompt_ids), **{"seed": 1, "sampling": GREEDY, "max_new_tokens": 24, **options})


def search(engine: Any, tokenizer: Tokenizer, request: Request, *parameters: Any) -> list[Record]:
    return list(decode_beams(Job(engine, tokenizer, request), BeamParameters(*parameters)))


def finishes(records: Sequence[Record]) -> list[Finish]:
    return [record for record in records if isinstance(record, Finish)]


def texts(records: Sequence[Record]) -> dict[int, list[int | None]]:
    """The new tokens of every sequence, followed through the steps and their parents."""
    token_ids: dict[int, list[int | None]] = {}
    before: dict[int, list[int | None]] = {}
    forward = -1
    for step in (record for record in records if isinstance(record, Step)):
        if step.forward != forward:
            forward, before = step.forward, {number: list(ids) for number, ids in token_ids.items()}
        new_ids = [choice.token_id for choice in step.choices if choice.status == "sampled"]
        token_ids[step.sequence] = before.get(step.sequence if step.parent is None else step.parent, []) + new_ids
    return token_ids


def assert_same_as_transformers(
    folder: Path, engine: Any, tokenizer: Tokenizer, request: Request, parameters: BeamParameters, **options: Any
) -> list[Record]:
    """Sequences in order, and scores, which are sums of logarithms, within 1e-5 of their size."""
    count, eos = parameters.beams, sorted(request.eos_token_ids)
    prompt = torch.tensor([request.prompt_ids])
    expected = peer(folder).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        num_beams=count,
        num_return_sequences=count,
        do_sample=False,
        length_penalty=parameters.length_penalty,
        early_stopping=parameters.early_stopping,
        max_new_tokens=request.max_new_tokens,
        eos_token_id=eos or None,
        pad_token_id=eos[0] if eos else 0,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    records = list(decode_beams(Job(engine, tokenizer, request), parameters))
    actual = texts(records)
    ends = finishes(records)
    assert len(ends) == count
    sequences = expected.sequences[:, len(request.prompt_ids) :].tolist()
    for finish, theirs, score in zip(ends, sequences, expected.sequences_scores.tolist(), strict=True):
        ours = actual[finish.sequence]
        assert ours == theirs[: len(ours)]
        assert set(theirs[len(ours) :]) <= {eos[0] if eos else 0}
        assert finish.score == pytest.approx(score, rel=1e-5)
        assert finish.text == tokenizer.decode([token_id for token_id in ours if token_id not in eos])
        assert finish.totals.new_tokens == len(ours)
        assert finish.reason == ("eos" if ours[-1] in eos else "length")
    return records


@pytest.mark.parametrize("beams", [2, 4, 8])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -0.5])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_the_beams_of_tale_are_those_of_transformers(
    beams: int, length_penalty: float, early_stopping: bool, tale: LoadedModel
) -> None:
    prompt = tale.tokenizer.encode('The fox was happy. "Good night," said the bear, and')
    request = request_of(prompt, eos_token_ids=tale.eos_token_ids)
    parameters = BeamParameters(beams, length_penalty, early_stopping)
    assert_same_as_transformers(TALE, tale.engine, tale.tokenizer, request, parameters)


@pytest.mark.parametrize("beams", [2, 4, 8])
@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize(
    ("sampling", "options", "theirs"),
    [
        ({}, {}, {}),
        ({"repetition_penalty": 1.4}, {}, {"repetition_penalty": 1.4}),
        ({"no_repeat_ngram_size": 2}, {}, {"no_repeat_ngram_size": 2}),
        ({}, {"min_new_tokens": 9}, {"min_new_tokens": 9}),
        (
            {"repetition_penalty": 0.8, "no_repeat_ngram_size": 3},
            {"min_new_tokens": 4, "prefill_chunk": 3},
            {"repetition_penalty": 0.8, "no_repeat_ngram_size": 3, "min_new_tokens": 4},
        ),
    ],
)
def test_ends_and_processors_have_the_effect_that_they_have_in_transformers(
    beams: int,
    early_stopping: bool,
    sampling: dict[str, Any],
    options: dict[str, Any],
    theirs: dict[str, Any],
    saved_checkpoint: Path,
    engine: TorchEngine,
    tokenizer: Tokenizer,
) -> None:
    """End tokens that the beams come to, some early."""
    eos = frequent(search(engine, tokenizer, request_of(tokenizer.encode(PROMPT), max_new_tokens=16), 8))
    request = request_of(
        tokenizer.encode(PROMPT),
        sampling=SamplingParameters(temperature=0, **sampling),
        eos_token_ids=eos,
        max_new_tokens=16,
        **options,
    )
    records = assert_same_as_transformers(
        saved_checkpoint, engine, tokenizer, request, BeamParameters(beams, 1.0, early_stopping), **theirs
    )
    if not sampling and not options:
        assert {finish.reason for finish in finishes(records)} == {"eos"}


def frequent(records: Sequence[Record]) -> frozenset[int]:
    """Three tokens that come often among the choices of these beams, but not first."""
    steps = [record for record in records if isinstance(record, Step) and record.forward > 2]
    counted = Counter(choice.token_id for step in steps for choice in step.choices if choice.token_id is not None)
    return frozenset(token_id for token_id, _ in counted.most_common(3))


def test_the_temperature_has_no_say(engine: TorchEngine, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode(PROMPT)
    warm = SamplingParameters(temperature=1.5, top_k=3)
    cold = finishes(search(engine, tokenizer, request_of(prompt), 3))
    assert [(f.text, f.score) for f in finishes(search(engine, tokenizer, request_of(prompt, sampling=warm), 3))] == [
        (f.text, f.score) for f in cold
    ]


def test_every_row_of_a_pass_is_told_once_and_a_branch_names_its_parent(
    engine: TorchEngine, tokenizer: Tokenizer
) -> None:
    prompt = tokenizer.encode(PROMPT)
    request = request_of(
        prompt, eos_token_ids=frequent(search(engine, tokenizer, request_of(prompt), 4)), prefill_chunk=5
    )
    run_totals = RunTotals()
    records = list(run_totals.watch(search(engine, tokenizer, request, 4)))

    steps = [record for record in records if isinstance(record, Step)]
    assert [step.index for step in steps] == list(range(len(steps)))
    sequences: set[int] = set()
    running = 1
    for _, group in itertools.groupby(steps, lambda step: step.forward):
        mates = list(group)
        chosen = [step for step in mates if step.choices]
        if chosen:
            assert sum(step.num_input_tokens > 0 for step in mates) == running
        assert len({step.sequence for step in mates}) == len(mates)
        for step in mates:
            assert (step.parent is None) == (step.sequence in sequences or step.forward == 0 or step.sequence == 0)
            assert step.parent is None or (step.parent in sequences | {0} and step.num_input_tokens == 0)
            assert step.text == ""
            assert len({step.seconds for step in mates}) == 1
        sequences |= {step.sequence for step in mates}
        running = sum(not is_last(step, request) for step in chosen) if chosen else running
    assert any(choice.status == "pruned" for step in steps for choice in step.choices)
    totals = run_totals.totals
    assert totals.prefill_tokens == len(request.prompt_ids)
    assert totals.forwards == steps[-1].forward + 1
    assert totals.new_tokens == sum(finish.totals.new_tokens for finish in finishes(records))


def is_last(step: Step, request: Request) -> bool:
    (choice,) = step.choices
    return choice.status == "pruned" or choice.token_id in request.eos_token_ids


def test_the_score_is_the_sum_of_the_logprobs_over_the_length(engine: TorchEngine, tokenizer: Tokenizer) -> None:
    request = request_of(tokenizer.encode(PROMPT), max_new_tokens=5)
    records = search(engine, tokenizer, request, 3, 0.5)
    best = finishes(records)[0]

    whole = [*request.prompt_ids, *texts(records)[best.sequence]]
    logprobs = as_tensor(engine.forward(torch.tensor([whole]), None, last=None))[0].log_softmax(-1)
    start = len(request.prompt_ids)
    total = sum(float(logprobs[place - 1, whole[place]]) for place in range(start, len(whole)))

    assert best.score == pytest.approx(total / math.sqrt(5), rel=1e-5)


def test_candidates_say_what_a_processor_did(engine: TorchEngine, tokenizer: Tokenizer) -> None:
    sampling = SamplingParameters(temperature=0, no_repeat_ngram_size=1, repetition_penalty=1.3)
    records = search(engine, tokenizer, request_of(tokenizer.encode(PROMPT), sampling=sampling, top=20), 2)

    choices = [choice for record in records if isinstance(record, Step) for choice in record.choices]
    candidates = [candidate for choice in choices for candidate in choice.candidates]
    assert {candidate.removed_by for candidate in candidates} == {None, "no-repeat-ngram"}
    assert any(candidate.moved for candidate in candidates)
    assert all(choice.prob is None and choice.draw is None for choice in choices)
    assert all(choice.token_id in [candidate.token_id for candidate in choice.candidates] for choice in choices)
    assert all(from_line(to_line(record)) == record for record in records)


def test_a_stop_string_ends_a_beam_and_is_cut(engine: TorchEngine, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode(PROMPT)
    whole = finishes(search(engine, tokenizer, request_of(prompt), 4))
    stop = whole[0].text[6:8]

    ends = finishes(search(engine, tokenizer, request_of(prompt, stops=(stop,)), 4))

    assert "stop" in {finish.reason for finish in ends}
    assert not any(stop in finish.text for finish in ends)
    assert sorted((finish.score for finish in ends), reverse=True) == [finish.score for finish in ends]


def test_constrained_beams_are_those_of_transformers_with_the_same_tokens_allowed(
    saved_checkpoint: Path, engine: TorchEngine, tokenizer: Tokenizer
) -> None:
    constraint, eos = Constraint("regex", (r"( the| a| said){1,3} [a-z]{2,5}\.",)), frozenset({0})
    request = request_of(tokenizer.encode(PROMPT), eos_token_ids=eos, constraint=constraint)

    def allowed(_: int, token_ids: torch.Tensor) -> list[int]:
        state = constraint.begin(tokenizer, eos)
        for token_id in token_ids.tolist()[len(request.prompt_ids) :]:
            state.advance(token_id)
        return state.mask().allowed.nonzero()[0].tolist()

    records = assert_same_as_transformers(
        saved_checkpoint, engine, tokenizer, request, BeamParameters(4), prefix_allowed_tokens_fn=allowed
    )

    ends = finishes(records)
    assert {finish.reason for finish in ends} == {"eos"}
    assert all(re.fullmatch(constraint.source[0], finish.text) for finish in ends)


def test_healed_beams_all_say_the_prompts_last_token_anew(engine: TorchEngine, tokenizer: Tokenizer) -> None:
    request = request_of(tokenizer.encode("The little"), healed=b" fo", max_new_tokens=8)
    records = search(engine, tokenizer, request, 4)
    for finish in finishes(records):
        text = tokenizer.decode(texts(records)[finish.sequence])
        assert text.startswith(" fo")
        assert finish.text == text[3:]


def test_guided_beams_are_scored_by_the_guided_logprobs(engine: TorchEngine, tokenizer: Tokenizer) -> None:
    scale, negative_ids = 1.7, tokenizer.encode("The bear said that the forest was")
    request = request_of(
        tokenizer.encode(PROMPT),
        sampling=SamplingParameters(temperature=0, guidance_scale=scale),
        negative_ids=negative_ids,
        max_new_tokens=6,
    )
    records = search(engine, tokenizer, request, 4)

    for finish in finishes(records):
        new_ids = texts(records)[finish.sequence]
        behind, beside = (
            as_tensor(engine.forward(torch.tensor([[*before, *new_ids]]), None, last=None))[0].log_softmax(-1)[
                len(before) - 1 :
            ]
            for before in (request.prompt_ids, negative_ids)
        )
        guided = scale * (behind - beside) + beside
        total = sum(float(guided[place, token_id]) for place, token_id in enumerate(new_ids))
        assert finish.score == pytest.approx(total / 6, rel=1e-5)


@pytest.mark.parametrize("taken", [0, 1, 2, 9])
def test_an_interrupt_ranks_what_there_is(taken: int, engine: TorchEngine, tokenizer: Tokenizer) -> None:
    flag = threading.Event()
    request = request_of(tokenizer.encode(PROMPT), prefill_chunk=8)
    records = decode_beams(Job(engine, tokenizer, request, flag), BeamParameters(3))
    before = list(itertools.islice(records, taken))
    flag.set()
    after = list(records)

    ends = finishes(after)
    assert {finish.reason for finish in ends} == {"interrupt"}
    assert len(ends) == (1 if taken < 2 else 3)
    ranked_texts = texts([*before, *after])
    assert [finish.text for finish in ends] == [
        tokenizer.decode(ranked_texts.get(finish.sequence, [])) for finish in ends
    ]


def test_an_error_gives_what_there_was_and_is_raised(tokenizer: Tokenizer) -> None:
    def script(length: int) -> torch.Tensor:
        return torch.full((512,), torch.nan) if length > 3 else torch.arange(512.0) / 100

    records = decode_beams(Job(tiny.ScriptedEngine(script), tokenizer, request_of((1, 2))), BeamParameters(2))
    beginning = list(itertools.islice(records, 4))
    beginning += list(itertools.takewhile(lambda record: len(finishes([record])) == 0, records))
    last = next(records)
    assert isinstance(last, Finish)
    assert (last.reason, last.totals.new_tokens) == ("error", 2)
    with pytest.raises(EngineError, match="not numbers"):
        next(records)


def test_the_context_bounds_the_beams(engine: TorchEngine, tokenizer: Tokenizer) -> None:
    request = request_of((1,) * (engine.limit - 3), max_new_tokens=10)
    ends = finishes(search(engine, tokenizer, request, 2))
    assert {(finish.reason, finish.totals.new_tokens) for finish in ends} == {("context", 3)}


@pytest.mark.parametrize("wrong", [(1,), (0,), (2, math.nan), (2, 1e9)])
def test_parameters_out_of_range_are_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ParameterError, match=r"^(beams|length_penalty) is "):
        BeamParameters(*wrong)


@pytest.mark.parametrize("options", [{"bans": ("x",)}, {"use_cache": False}])
def test_what_needs_a_single_text_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="leave out one of the two"):
        next(decode_beams(Job(None, None, request_of((1, 2), **options)), BeamParameters(2)))


def test_an_over_long_prompt_is_refused_before_the_first_pass(engine: TorchEngine, tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError, match="256"):
        search(engine, tokenizer, request_of((1,) * 256), 2)

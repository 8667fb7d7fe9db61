"""Several samples: each is the text that its derived seed gives alone, from one prefill."""

from __future__ import annotations

import itertools
import re
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.run_totals import RunTotals
from tokenglass.model.decoding.samples import decode_samples, derived_seed, derived_seeds
from tokenglass.model.engine.engine import Engine, Ids, Logits
from tokenglass.model.errors import EngineError, ParameterError, PromptError
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Choice, Finish, Record, Step, Totals
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

TALE = bundled_folder()
PROMPT = "Once upon a time there was a little fox"
SAMPLED = SamplingParameters(temperature=1.2, top_k=80, top_p=0.98)


@pytest.fixture(scope="module")
def engine(saved_checkpoint: Path) -> Engine:
    return load_model(saved_checkpoint, backend="auto").engine  # rows are exact in the native one


def request_of(tokenizer: Tokenizer, **options: Any) -> Request:
    settings = {"seed": 7, "sampling": SAMPLED, "max_new_tokens": 40, "eos_token_ids": frozenset({0}), **options}
    return Request(tokenizer.encode(PROMPT), **settings)


def several(engine: Any, tokenizer: Tokenizer, request: Request, count: int) -> list[Record]:
    return list(decode_samples(Job(engine, tokenizer, request), count))


def text_of(records: Sequence[Record], number: int) -> str:
    return "".join(record.text for record in records if record.sequence == number)


def finish_of(records: Sequence[Record], number: int) -> Finish:
    (finish,) = (record for record in records if isinstance(record, Finish) and record.sequence == number)
    return finish


def steps_of(records: Sequence[Record], number: int) -> list[Step]:
    return [record for record in records if isinstance(record, Step) and record.sequence == number]


def settled_ids(records: Sequence[Record], number: int) -> list[int | None]:
    """The tokens that stand, after all rewinds."""
    choices: list[Choice] = []
    for step in steps_of(records, number):
        if step.rewound_to is not None:
            choices = [choice for choice in choices if choice.position < step.rewound_to]
        choices += step.choices
    return [choice.token_id for choice in choices]


def assert_each_is_a_run_alone(engine: Any, tokenizer: Tokenizer, request: Request, count: int) -> list[Record]:
    records = several(engine, tokenizer, request, count)
    for number, seed in enumerate(derived_seeds(request.seed, count)):
        alone = list(decode(Job(engine, tokenizer, replace(request, seed=seed))))
        assert settled_ids(records, number) == settled_ids(alone, 0)
        assert text_of(records, number) == text_of(alone, 0)
        actual, expected = finish_of(records, number), finish_of(alone, 0)
        assert actual.reason == expected.reason
        assert actual.totals.new_tokens == expected.totals.new_tokens
    return records


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**64 - 1),
    count=st.integers(1, 5),
    chunk=st.sampled_from([3, 256]),
    stops=st.sampled_from([(), ("e",), ("the", " a")]),
    temperature=st.sampled_from([0.7, 1.5]),
)
def test_every_sample_is_what_its_derived_seed_gives_alone(
    engine: Engine,
    tokenizer: Tokenizer,
    seed: int,
    count: int,
    chunk: int,
    stops: tuple[str, ...],
    temperature: float,
) -> None:
    sampling = SamplingParameters(temperature=temperature, repetition_penalty=1.1)
    request = request_of(tokenizer, seed=seed, prefill_chunk=chunk, stops=stops, sampling=sampling, max_new_tokens=15)
    assert_each_is_a_run_alone(engine, tokenizer, request, count)


def test_rows_whose_text_is_taken_back_do_not_disturb_the_others(engine: Engine, tokenizer: Tokenizer) -> None:
    found = several(engine, tokenizer, request_of(tokenizer), 4)
    bans = tuple({text_of(found, number)[5:8] for number in (0, 2)})

    records = assert_each_is_a_run_alone(engine, tokenizer, request_of(tokenizer, bans=bans), 4)

    rewound = {record.sequence for record in records if isinstance(record, Step) and record.rewound_to is not None}
    assert {0, 2} <= rewound
    assert not any(ban in text_of(records, number) for ban in bans for number in range(4))


def test_rows_of_unequal_lengths_keep_their_sliding_windows(tokenizer: Tokenizer) -> None:
    windowed = replace(tiny.CONFIG.layers[0], window=12)
    config = replace(tiny.CONFIG, layers=(windowed, tiny.CONFIG.layers[1]))
    engine = TorchEngine(tiny.random_transformer(config), torch.device("cpu"), torch.float32)
    found = several(engine, tokenizer, request_of(tokenizer, max_new_tokens=100), 3)
    bans = (text_of(found, 1)[70:74],)

    records = assert_each_is_a_run_alone(engine, tokenizer, request_of(tokenizer, max_new_tokens=100, bans=bans), 3)

    assert any(step.rewound_to is not None for step in steps_of(records, 1))


def test_tokens_that_a_constraint_forces_are_computed_in_one_pass_beside_the_others(
    engine: Engine, tokenizer: Tokenizer
) -> None:
    regex = "(fox|f|[a-e]+, and then the) bear said (hello|that|cold)[.!]"
    request = request_of(
        tokenizer, constraint=Constraint("regex", (regex,)), sampling=SamplingParameters(temperature=5.0)
    )

    records = assert_each_is_a_run_alone(engine, tokenizer, request, 6)

    assert all(re.fullmatch(regex, text_of(records, number)) for number in range(6))
    steps = [record for record in records if isinstance(record, Step)]
    assert any(choice.status == "forced" for step in steps for choice in step.choices)
    assert all(step.choices for step in steps if step.phase == "decode")
    widths = defaultdict[int, set[int]](set)
    for step in steps:
        if step.phase == "decode":
            widths[step.forward].add(step.num_input_tokens)
    assert any(len(width) > 1 for width in widths.values())


def test_guided_samples_are_guided_as_alone(engine: Engine, tokenizer: Tokenizer) -> None:
    sampling = SamplingParameters(temperature=0.9, guidance_scale=1.6)
    request = request_of(
        tokenizer, sampling=sampling, negative_ids=tokenizer.encode("The bear said"), max_new_tokens=12
    )
    assert_each_is_a_run_alone(engine, tokenizer, request, 3)


def test_tale_writes_the_samples_that_it_writes_alone() -> None:
    loaded = load_model(TALE)
    request = request_of(loaded.tokenizer, eos_token_ids=loaded.eos_token_ids, max_new_tokens=60)

    records = assert_each_is_a_run_alone(loaded.engine, loaded.tokenizer, request, 4)

    assert len({text_of(records, number) for number in range(4)}) == 4


def test_the_native_engine_gives_the_very_same_numbers_alone_and_beside_others() -> None:
    try:
        loaded = load_model(TALE, backend="native")
    except EngineError as reason:
        pytest.skip(str(reason))
    request = request_of(loaded.tokenizer, eos_token_ids=loaded.eos_token_ids, max_new_tokens=60, prefill_chunk=4)

    records = assert_each_is_a_run_alone(loaded.engine, loaded.tokenizer, request, 5)

    for number, seed in enumerate(derived_seeds(request.seed, 5)):
        alone = list(decode(Job(loaded.engine, loaded.tokenizer, replace(request, seed=seed))))
        choices = [choice for step in steps_of(records, number) for choice in step.choices]
        assert choices == [choice for step in steps_of(alone, 0) for choice in step.choices]


def test_the_prompt_is_computed_once_and_every_pass_counted_once(engine: Engine, tokenizer: Tokenizer) -> None:
    request = request_of(tokenizer, prefill_chunk=4, max_new_tokens=6, eos_token_ids=frozenset())
    run_totals = RunTotals()
    records = list(run_totals.watch(several(engine, tokenizer, request, 3)))

    length = len(request.prompt_ids)
    totals = run_totals.totals
    assert totals.prefill_tokens == length
    assert totals.positions_computed == length + 3 * 5
    assert totals.forwards == -(-length // 4) + 5
    assert (totals.new_tokens, totals.decode_tokens) == (18, 15)
    passes = {step.forward: step.seconds for step in records if isinstance(step, Step)}
    assert totals.prefill_seconds + totals.decode_seconds == pytest.approx(sum(passes.values()))
    assert [record.index for record in records if isinstance(record, Step)] == list(range(-(-length // 4) + 2 + 15))
    for number in range(3):
        steps = steps_of(records, number)
        assert finish_of(records, number).totals == fold(steps)
        assert [step.parent for step in steps[:2]] == [None if number == 0 else 0, None]
        assert steps[-1].cache is not None
        assert steps[-1].cache.length == length + 5
    assert run_totals.finish.reason == "length"


def fold(steps: Sequence[Step]) -> Totals:
    totals = Totals()
    for step in steps:
        totals = totals.plus(step)
    return totals


def test_a_sample_that_has_ended_is_computed_no_more(tokenizer: Tokenizer) -> None:
    scripted = RowEngine(lambda length, row: 0 if row == 1 and length == 4 else 30)

    records = several(scripted, tokenizer, Request((1, 2), 1, eos_token_ids=frozenset({0}), max_new_tokens=5), 3)

    assert [finish_of(records, number).reason for number in range(3)] == ["length", "eos", "length"]
    assert [len(steps_of(records, number)) for number in range(3)] == [5, 3, 5]
    assert scripted.rows == [1, 3, 3, 2, 2]
    first = next(record for record in records if isinstance(record, Finish))
    assert first.sequence == 1


@pytest.mark.parametrize("taken", [0, 1, 4, 7])
def test_an_interrupt_finishes_every_sample_with_what_it_has(taken: int, tokenizer: Tokenizer) -> None:
    flag = threading.Event()
    request = Request((1, 2, 3, 4), 1, SAMPLED, prefill_chunk=2)
    records = decode_samples(Job(RowEngine(lambda *_: 30), tokenizer, request, flag), 3)
    before = list(itertools.islice(records, taken))
    flag.set()
    after = [*before, *records]

    finishes = [record for record in after if isinstance(record, Finish)]
    assert [(finish.sequence, finish.reason) for finish in finishes] == [(k, "interrupt") for k in range(3)]
    run_totals = RunTotals()
    assert list(run_totals.watch(after))
    assert run_totals.finish.reason == "interrupt"


def test_an_error_finishes_every_sample_and_is_raised(tokenizer: Tokenizer) -> None:
    scripted = RowEngine(lambda length, row: None if length == 5 else 30)
    records = decode_samples(Job(scripted, tokenizer, Request((1, 2), 1, SAMPLED)), 2)

    beginning = list(itertools.islice(records, 8))

    assert [record.reason for record in beginning if isinstance(record, Finish)] == ["error", "error"]
    with pytest.raises(EngineError, match="not numbers"):
        next(records)


def test_the_first_derived_seed_is_the_seed_and_all_are_distinct() -> None:
    assert derived_seed(2**64 - 1, 0) == 2**64 - 1
    assert derived_seeds(1, 4) == (1, 2862481275, 1442773374, 1722470619)
    assert len(set(derived_seeds(1, 1000))) == 1000
    assert not set(derived_seeds(1, 100)) & set(derived_seeds(2, 100))


def test_several_greedy_samples_are_refused() -> None:
    greedy = SamplingParameters(temperature=0)
    with pytest.raises(ParameterError, match="temperature"):
        next(decode_samples(Job(None, None, Request((1,), 1, greedy)), 2))
    with pytest.raises(ParameterError, match="num_samples is 0"):
        next(decode_samples(Job(None, None, Request((1,), 1)), 0))
    with pytest.raises(ParameterError, match="cache"):
        next(decode_samples(Job(None, None, Request((1,), 1, use_cache=False)), 2))


def test_an_over_long_prompt_is_refused_before_the_first_pass(engine: Engine, tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError, match="256"):
        next(decode_samples(Job(engine, tokenizer, Request((1,) * 256, 1)), 2))


class RowEngine(tiny.ScriptedEngine):
    """Sure of `script(length, number)`, or saying NaN for None; it knows which sample a row is by its marks."""

    def __init__(self, script: Any):
        super().__init__(lambda _: torch.zeros(tiny.VOCAB_SIZE))
        self.pick = script
        self.rows: list[int] = []
        self.cache: Any = None

    def forward(self, token_ids: Ids, cache: Any, **_: Any) -> list[Logits]:
        super().forward(token_ids, cache)
        self.rows.append(len(token_ids))
        logits = np.zeros((len(token_ids), 1, tiny.VOCAB_SIZE), np.float32)
        for row, length in enumerate(cache.lengths):
            token_id = self.pick(length, row)
            if token_id is None:
                logits[row] = np.nan
            else:
                logits[row, 0, token_id] = 60.0
        return list(logits)

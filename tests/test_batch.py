"""Continuous batching: the text of each prompt is its single run's, whatever slots, order and neighbours it has."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tiny
from families import CASES, save

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.batch import Batch
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.sequence import Sequence as Text
from tokenglass.model.errors import EngineError, TokenglassError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish, Record, Step
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.torch_engine.engine import TorchEngine

SAMPLED = SamplingParameters(temperature=1.2, top_k=80, top_p=0.98)
WORDS = tiny.TEXTS[0].split()
FAMILIES = ("llama, dynamic", "gemma3_text", "gpt2", "qwen3", "phi3, longrope")  # two whose ropes go by the length


@dataclass
class Given:
    """Prompts in a list; some come only when the texts in work have made a few passes."""

    texts: list[Text]
    delays: list[int] = field(default_factory=list)  # how often None comes before each

    @property
    def are_left(self) -> bool:
        return bool(self.texts)

    def take(self, *, wait: bool) -> Text | None:
        if self.delays and self.delays[0] > 0 and not wait:
            self.delays[0] -= 1
            return None
        self.delays = self.delays[1:]
        return self.texts.pop(0) if self.texts else None


@dataclass(frozen=True)
class Outcome:
    text: str | None
    reason: str
    new_tokens: int
    token_ids: tuple[int | None, ...]


def outcome(records: Sequence[Record], number: int = 0) -> Outcome:
    settled: dict[int, int | None] = {}
    for record in records:
        if record.sequence != number:
            continue
        if isinstance(record, Finish):
            ids = tuple(settled[place] for place in sorted(settled))
            return Outcome(record.whole_text, record.reason, record.totals.new_tokens, ids)
        if record.rewound_to is not None:
            settled = {place: token for place, token in settled.items() if place < record.rewound_to}
        settled |= {choice.position: choice.token_id for choice in record.settled}
    raise AssertionError(f"no end of {number}")


def texts_of(model: Any, requests: Iterable[Request]) -> Iterator[Text]:
    for number, request in enumerate(requests):
        text = Job(model.engine, model.tokenizer, request).new_sequence()
        text.number = number
        yield text


def batch(
    model: Any, requests: Sequence[Request], slots: int = 8, *, delays: Sequence[int] = (), **options: Any
) -> list[Record]:
    source = Given([*texts_of(model, requests)], [*delays])
    return list(Batch(model.engine, source, slots, threading.Event(), {}, **options).records())


def alone(model: Any, request: Request) -> Outcome:
    return outcome(list(decode(Job(model.engine, model.tokenizer, request))))


def steps_of(records: Sequence[Record], number: int) -> list[Step]:
    return [record for record in records if isinstance(record, Step) and record.sequence == number]


def computed(records: Iterable[Record]) -> int:
    return sum(record.num_input_tokens for record in records if isinstance(record, Step))


@pytest.fixture(scope="module")
def tale() -> LoadedModel:
    return load_model(bundled_folder(), backend="native")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp(request.param)
    save(folder, *CASES[request.param])
    return load_model(folder, backend="native", dtype="float32")


def requests_of(model: LoadedModel, count: int, draw: random.Random) -> list[Request]:
    """Prompts of different lengths, some of which begin alike, with settings of their own."""
    shared = " ".join(draw.choices(WORDS, k=45))
    requests = []
    for number in range(count):
        words = " ".join(draw.choices(WORDS, k=draw.randrange(1, 25)))
        prompt = f"{shared} {words}" if draw.random() < 0.3 else words
        most = draw.choice([1, 3, 8, 14])
        requests.append(
            Request(
                model.tokenizer.encode(prompt)[: model.engine.limit - most],
                seed=draw.randrange(2**64),
                sampling=SAMPLED.replace(temperature=draw.choice([0.0, 0.7, 1.5]), repetition_penalty=1.1),
                max_new_tokens=most,
                eos_token_ids=frozenset({number % 50}),
                stops=draw.choice([(), ("e",), ("the", " a")]),
                bans=draw.choice([(), (), (" fox", "o")]),
                top=draw.choice([0, 3]),
            )
        )
    return requests


@pytest.mark.slow
def test_300_sampled_prompts_have_the_texts_of_their_single_runs(family: LoadedModel) -> None:
    draw = random.Random(3)
    requests = requests_of(family, 60, draw)
    expected = [alone(family, request) for request in requests]
    for slots, chunk in ((1, 256), (5, 7), (32, 64)):
        order = draw.sample(range(len(requests)), len(requests))
        records = batch(family, [requests[place] for place in order], slots, chunk=chunk)
        assert [outcome(records, number) for number in range(len(order))] == [expected[place] for place in order]


def test_prompts_that_come_late_find_a_place_beside_those_in_work(tale: LoadedModel) -> None:
    requests = requests_of(tale, 24, random.Random(5))
    records = batch(tale, requests, 4, delays=[draw % 4 for draw in range(24)])
    assert [outcome(records, number) for number in range(24)] == [alone(tale, request) for request in requests]


def story(model: LoadedModel, words: int, end: str, **options: Any) -> Request:
    settings = {"seed": 1, "sampling": SAMPLED, "max_new_tokens": 6, **options}
    return Request(
        model.tokenizer.encode(" ".join(WORDS[place % len(WORDS)] for place in range(words)) + end), **settings
    )


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_what_prompts_begin_with_in_common_is_computed_once(tale: LoadedModel, slots: int) -> None:
    requests = [story(tale, 90, f" number {number}", seed=number) for number in range(16)]
    records = batch(tale, requests, slots, chunk=32)
    alike = len(tale.tokenizer.encode(" ".join(WORDS[place % len(WORDS)] for place in range(90))))
    assert computed(records) < alike + 16 * 16
    parents = {steps_of(records, number)[0].parent for number in range(1, 16)}
    assert None not in parents
    assert [outcome(records, number) for number in range(16)] == [alone(tale, request) for request in requests]


def test_two_kinds_of_beginnings_are_each_computed_once_though_their_prompts_come_in_turn(tale: LoadedModel) -> None:
    requests = [story(tale, 60 + number % 2, f" {number}", seed=number) for number in range(12)]
    other = Request(tale.tokenizer.encode("The hen. " * 30), seed=2, sampling=SAMPLED, max_new_tokens=4)
    requests = [request for pair in zip(requests, [other] * 12, strict=True) for request in pair]
    records = batch(tale, requests, 3)
    assert computed(records) < len(requests[0].prompt_ids) + len(other.prompt_ids) + 24 * 16
    assert [outcome(records, number) for number in range(24)] == [alone(tale, request) for request in requests]


def test_a_window_that_has_let_go_of_a_beginning_lets_it_be_computed_again() -> None:
    layers = (LayerKind(Rope(10000.0, 8), 5), LayerKind(Rope(10000.0, 8)))
    config = replace(tiny.CONFIG, layers=layers, max_positions=512)
    engine = TorchEngine(tiny.random_transformer(config), tiny.torch.device("cpu"), tiny.torch.float32)
    model: Any = type("Model", (), {"engine": engine, "tokenizer": tiny_tokenizer()})
    ids = tuple(place * 7 % 400 for place in range(60))
    long = Request(ids, seed=1, sampling=SamplingParameters(temperature=0), max_new_tokens=200)
    later = Request((*ids, 3, 4), seed=2, sampling=SamplingParameters(temperature=0), max_new_tokens=20)

    records = batch(model, [long, later], 1)

    assert [outcome(records, 0), outcome(records, 1)] == [alone(model, long), alone(model, later)]
    assert steps_of(records, 1)[0].parent == 0


@cache
def tiny_tokenizer() -> Any:
    from tokenglass.model.text.tokenizer import Tokenizer  # noqa: PLC0415

    return Tokenizer(tiny.byte_level_tokenizer())


def test_a_prompt_is_read_in_chunks_while_the_others_go_on(tale: LoadedModel) -> None:
    requests = [story(tale, 3, "", max_new_tokens=30), story(tale, 120, "", seed=2)]
    records = batch(tale, requests, 2, delays=[0, 3], chunk=16)
    prefill = [step for step in steps_of(records, 1) if step.phase == "prefill"]
    beside = {step.forward for step in steps_of(records, 0) if step.phase == "decode"}
    assert len(prefill) >= 8
    assert max(step.num_input_tokens for step in prefill) <= 16
    assert {step.forward for step in prefill} <= beside


def test_a_text_that_ends_makes_room_in_the_very_next_pass(tale: LoadedModel) -> None:
    requests = [story(tale, 2, "", max_new_tokens=2 + 3 * (number % 2), ignore_eos=True) for number in range(9)]
    records = batch(tale, requests, 2)
    rows = defaultdict[int, set[int]](set)
    for record in records:
        if isinstance(record, Step):
            rows[record.forward].add(record.sequence)
    last = max(rows)
    assert all(len(rows[forward]) == 2 for forward in range(last - 2))


def test_an_error_of_one_text_ends_that_one_and_no_other(tale: LoadedModel) -> None:
    requests = [story(tale, 4, f" {number}", seed=number, max_new_tokens=12) for number in range(5)]
    texts = [*texts_of(tale, requests)]

    def broken(*_: object) -> None:
        raise EngineError("its logits are no numbers")

    texts[2].decide = broken  # type: ignore[method-assign,assignment]
    failures: dict[int, TokenglassError] = {}
    records = list(Batch(tale.engine, Given(texts), 8, threading.Event(), failures).records())

    assert outcome(records, 2).reason == "error"
    assert str(failures[2]) == "its logits are no numbers"
    assert [outcome(records, number) for number in (0, 1, 3, 4)] == [
        alone(tale, requests[number]) for number in (0, 1, 3, 4)
    ]


def test_an_interrupt_lets_the_texts_in_work_end_and_begins_no_other(tale: LoadedModel) -> None:
    requests = [story(tale, 4, f" {number}", seed=number, max_new_tokens=12) for number in range(9)]
    interrupt, source = threading.Event(), Given([*texts_of(tale, requests)])
    records = []
    for record in Batch(tale.engine, source, 3, interrupt, {}).records():
        records.append(record)
        if len(records) == 5:
            interrupt.set()
    begun = {record.sequence for record in records}
    assert begun == {0, 1, 2}
    assert [outcome(records, number) for number in range(3)] == [alone(tale, request) for request in requests[:3]]


def test_an_error_of_the_engine_ends_every_text_and_is_raised(tale: LoadedModel) -> None:
    requests = [story(tale, 4, f" {number}") for number in range(4)]
    source = Given([*texts_of(tale, requests)])

    class Breaking:
        limit, vocab_size, measure = tale.engine.limit, tale.engine.vocab_size, tale.engine.measure
        new_cache, measure_each, draw_each = tale.engine.new_cache, tale.engine.measure_each, tale.engine.draw_each
        passes = 0

        def forward(self, *arguments: Any, **options: Any) -> Any:
            self.passes += 1
            if self.passes == 3:
                raise EngineError("the memory is gone")
            return tale.engine.forward(*arguments, **options)

    records: list[Record] = []
    with pytest.raises(EngineError, match="memory is gone"):
        records.extend(Batch(Breaking(), source, 3, threading.Event(), {}).records())  # type: ignore[arg-type]
    assert [outcome(records, number).reason for number in range(3)] == ["error"] * 3


def test_time_counts_from_where_a_text_begins(tale: LoadedModel) -> None:
    requests = [story(tale, 3, "", max_new_tokens=200, ignore_eos=True, max_seconds=1e-6), story(tale, 3, "")]
    records = batch(tale, requests, 1)
    assert [outcome(records, number).reason for number in range(2)] == ["time", alone(tale, requests[1]).reason]


def test_rows_plan_for_no_more_positions_than_there_is_room_for(tale: LoadedModel) -> None:
    requests = [story(tale, 10, f" {number}", seed=number, max_new_tokens=100) for number in range(6)]
    records = batch(tale, requests, 6, room=300)  # 128 positions each
    rows = defaultdict[int, set[int]](set)
    held = defaultdict[int, int](int)
    for record in records:
        if isinstance(record, Step) and record.cache is not None:
            rows[record.forward].add(record.sequence)
            held[record.forward] += record.cache.allocated
    assert max(map(len, rows.values())) == 2
    assert max(held.values()) <= 300
    assert [outcome(records, number) for number in range(6)] == [alone(tale, request) for request in requests]


def test_a_text_too_large_for_the_room_is_written_alone(tale: LoadedModel) -> None:
    requests = [story(tale, 10, f" {number}", max_new_tokens=60 * number) for number in range(1, 4)]
    records = batch(tale, requests, 6, room=64)
    assert [outcome(records, number) for number in range(3)] == [alone(tale, request) for request in requests]


def test_texts_with_a_constraint_are_written_beside_free_ones(tale: LoadedModel) -> None:
    constraint = Constraint("regex", ("(fox|f|[a-e]+, and then the) bear said (hello|that|cold)[.!]",))
    requests = [
        story(tale, 4, "", seed=number, max_new_tokens=20, constraint=constraint if number % 2 else None)
        for number in range(6)
    ]
    records = batch(tale, requests, 6)
    assert [outcome(records, number) for number in range(6)] == [alone(tale, request) for request in requests]


def test_what_is_kept_does_not_grow_with_the_number_of_texts(tale: LoadedModel) -> None:
    """Neither the numbers of a finished text nor its row are there when the run is over."""
    recorders = []
    requests = [story(tale, 3, f" {number}", max_new_tokens=2) for number in range(40)]
    source = Given([*texts_of(tale, requests)])
    work = Batch(tale.engine, source, 4, threading.Event(), {})
    once = work.decode_once

    def decode_once(recorder: Any) -> Iterator[Step]:
        recorders.append(recorder)
        return once(recorder)

    work.decode_once = decode_once  # type: ignore[method-assign]
    assert len([record for record in work.records() if isinstance(record, Finish)]) == 40
    assert not recorders[0]._totals
    assert not recorders[0]._texts
    assert len(work._slots.slots) <= 4
    assert np.sum([row.usage().allocated for row in work._slots.cache.rows]) <= 4 * 64

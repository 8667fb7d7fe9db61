"""Responses of other servers as traces: what they report, and nothing that they do not."""

from __future__ import annotations

import contextlib
import json
import math
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from responses import (
    CHAT,
    CHAT_STREAM,
    COMPLETION,
    CONTENT,
    FORMER,
    LLAMA_CPP,
    LOGPROBS,
    OLLAMA,
    OLLAMA_STREAM,
    SAMPLED,
    TEXT,
    VLLM,
    WHOLE,
    as_events,
    as_lines,
)
from scripted_run import choice
from shell import assert_one_line_error, tokenglass
from test_export import data_of

from tokenglass.model.errors import TraceError
from tokenglass.model.importers.response_trace import runs_of
from tokenglass.model.importers.responses import read_responses
from tokenglass.model.records.bounds import Bounds
from tokenglass.model.records.steps import Candidate, Choice, Finish, Record, Step
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.schema import trace_schema
from tokenglass.model.runs.trace import from_line, to_line

SCHEMA = jsonschema.Draft202012Validator(trace_schema())


def import_response(content: Any) -> tuple[Run, list[Record]]:
    text = content if isinstance(content, str) else json.dumps(content)
    run, *records = runs_of(read_responses(text.encode()))
    assert isinstance(run, Run)
    for record in (run, *records):
        SCHEMA.validate(json.loads(to_line(record)))
    return run, [record for record in records if not isinstance(record, Run)]


def choices_of(records: list[Record]) -> list[Choice]:
    return [choice for record in records if isinstance(record, Step) for choice in record.choices]


@pytest.mark.parametrize("name", WHOLE)
def test_every_shape_gives_the_tokens_with_the_numbers_that_it_reports(name: str) -> None:
    run, records = import_response(WHOLE[name])
    choices = choices_of(records)
    assert "".join(record.text for record in records) == TEXT
    assert [choice.piece for choice in choices] == [b" fox", b"\xc3", b"\xa9"]
    assert [choice.logprob for choice in choices] == [chosen for chosen, _ in LOGPROBS]
    assert [[each.logprob for each in choice.candidates] for choice in choices] == [[*pair] for pair in LOGPROBS]
    assert [choice.rank for choice in choices] == [1, 1, 1]
    for each in choices:
        assert each.prob is each.entropy is each.draw is None
        assert each.candidates[0].token_id == each.token_id
        assert all(candidate.prob is None for candidate in each.candidates)
    assert run.is_imported
    assert run.model == WHOLE[name]["model"]
    assert all(record.cache is None for record in records if isinstance(record, Step))


def test_what_servers_tell_besides_is_kept() -> None:
    run, records = import_response(LLAMA_CPP)
    assert (run.prompt, run.prompt_length) == ("The quick brown", 4)
    assert [choice.token_id for choice in choices_of(records)] == [100, 101, 102]
    assert [record.seconds for record in records if isinstance(record, Step)] == pytest.approx([0.04, 0.01, 0.01])
    assert isinstance(records[-1], Finish)
    assert records[-1].reason == "length"
    run, records = import_response(OLLAMA)
    assert [record.seconds for record in records if isinstance(record, Step)] == pytest.approx([0.04, 0.01, 0.01])
    run, records = import_response(VLLM)
    assert run.engine.backend == "vllm"
    assert run.request.prompt_ids == (785, 38835)
    assert [choice.token_id for choice in choices_of(records)] == [38835, 127, 102]
    run, records = import_response(CHAT)
    assert run.prompt_length == 9
    ids = [choice.token_id for choice in choices_of(records)]
    assert len({*ids}) == 3
    assert max(each for each in ids if each is not None) < 0, "an id that nobody reported is below 0"


def test_probabilities_of_what_was_sampled_are_final() -> None:
    for response in (SAMPLED, FORMER):
        _, records = import_response(response)
        (only,) = choices_of(records)
        assert (only.prob, only.logprob, only.rank) == (0.75, None, None)
        assert [candidate.prob for candidate in only.candidates] == [0.75, 0.25]
        assert all(math.isnan(candidate.logprob) for candidate in only.candidates)


def test_a_number_that_stands_for_very_unlikely_is_none() -> None:
    content = [{**CONTENT[0], "logprob": -9999.0, "token": "odd", "bytes": None}]
    choice = {**CHAT["choices"][0], "logprobs": {"content": content}}  # type: ignore[index]
    _, records = import_response({**CHAT, "choices": [choice]})
    (only,) = choices_of(records)
    assert (only.logprob, only.rank, only.piece) == (None, None, b"odd")


@pytest.mark.parametrize(
    ("stream", "whole"),
    [
        (as_events(CHAT_STREAM), CHAT),
        (as_lines(CHAT_STREAM), CHAT),
        (as_lines(OLLAMA_STREAM), OLLAMA),
        (json.dumps([CHAT]), CHAT),
    ],
    ids=["events", "lines", "ollama", "list"],
)
def test_a_stream_is_the_same_text_as_the_whole(stream: str, whole: dict[str, Any]) -> None:
    _, records = import_response(stream)
    assert choices_of(records) == choices_of(import_response(whole)[1])
    assert sum(isinstance(record, Finish) for record in records) == 1


def test_several_texts_and_several_responses_stay_apart() -> None:
    first = COMPLETION["choices"][0]  # type: ignore[index]
    _, records = import_response({**COMPLETION, "choices": [first, {**first, "index": 1}]})
    assert {record.sequence for record in records} == {0, 1}
    many = [*runs_of(read_responses(as_lines([CHAT, {**CHAT, "id": "another"}, OLLAMA, OLLAMA]).encode()))]
    assert sum(isinstance(record, Run) for record in many) == 4


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30), st.integers(1, 30), st.data())
def test_the_bounds_hold_for_any_distribution(weights: list[float], top: int, data: st.DataObject) -> None:
    probs = sorted((weight / sum(weights) for weight in weights), reverse=True)
    entropy = -sum(prob * math.log2(prob) for prob in probs)
    chosen = data.draw(st.integers(0, len(probs) - 1))
    top_ids = sorted({*range(min(top, len(probs))), chosen})
    candidates = tuple(Candidate(token_id, b"x", math.log(probs[token_id]), None) for token_id in top_ids)
    drawn = Choice(0, chosen, b"x", math.log(probs[chosen]), None, None, None, None, candidates)
    bounds = Bounds.of(drawn)
    assert bounds is not None
    assert bounds.rest == pytest.approx(1 - sum(probs[token_id] for token_id in top_ids), abs=1e-9)
    assert bounds.least_entropy <= entropy + 1e-9
    if len(top_ids) == len(probs):
        assert bounds.least_entropy == pytest.approx(entropy, abs=1e-6)


def test_nothing_is_known_of_a_choice_without_candidates() -> None:
    assert Bounds.of(Choice(0, 1, b"x", None, None, None, None, None)) is None
    assert Bounds.of(choice(b"x")) is not None


@pytest.mark.parametrize("name", ["OpenAI chat", "llama.cpp"])
def test_replay_and_export_work_on_what_was_imported(name: str, tmp_path: Path) -> None:
    (tmp_path / "response.json").write_text(json.dumps(WHOLE[name]))
    done = tokenglass("import-trace", str(tmp_path / "response.json"))
    assert done.returncode == 0, done.stderr.decode()
    replayed = tokenglass("replay", "-", "--stats", stdin=done.stdout)
    assert replayed.stdout.decode().endswith(TEXT)
    assert b"settings not reported" in replayed.stderr
    for line in done.stdout.decode().splitlines():
        assert to_line(from_line(line)) == line
    (text,) = data_of(tokenglass("export", "-", "--html", stdin=done.stdout).stdout.decode())["texts"]
    first = text["tokens"][0]
    listed = sum(math.exp(logprob) for logprob in LOGPROBS[0])
    assert first["rest"] == pytest.approx(1 - listed)
    assert first["entropy"] is None
    assert first["least_entropy"] > 0
    assert "temperature" not in text["about"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hello", "not JSON"),
        ("[1]", "a JSON object"),
        ('{"a": 1}', "none of OpenAI's shape"),
        ('{"error": {"message": "no such model"}}', "no such model"),
        (json.dumps({**CHAT, "choices": [{"index": 0, "message": {"content": "x"}, "logprobs": None}]}), "logprobs"),
        ('{"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": []}}]}', "one length"),
        ('{"choices": [{"logprobs": {"content": [{"token": "token_id:5"}]}}]}', "return_tokens_as_token_ids"),
        ("", "no log-probabilities"),
        ("\ud800", "not UTF-8"),
    ],
)
def test_anything_else_is_one_line(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "response").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert_one_line_error(tokenglass("import-trace", str(tmp_path / "response")), 1, str(tmp_path / "response"), words)


def test_two_thousand_mutations_are_traces_or_one_clear_line() -> None:
    chance = random.Random(3)
    shapes = [*WHOLE.values(), SAMPLED, FORMER]
    values: tuple[Any, ...] = (None, "", "x", -1, 10**400, 1e308, True, [], {}, [[]], "\ud800", float("nan"))

    def mutate(value: Any) -> Any:
        if chance.random() < 0.06:
            return chance.choice(values)
        if isinstance(value, dict):
            rest = {name: mutate(each) for name, each in value.items() if chance.random() > 0.02}
            return {chance.choice([*rest]): mutate(each) for each in rest.values()} if chance.random() < 0.02 else rest
        return [mutate(each) for each in value] if isinstance(value, list) else value

    for turn in range(2000):
        content = json.dumps(mutate(shapes[turn % len(shapes)])).encode("utf-8", "surrogatepass")
        with contextlib.suppress(TraceError):
            for record in runs_of(read_responses(content)):
                assert to_line(from_line(to_line(record))) == to_line(record)

"""What comes out fits the constraint, whatever the model would rather say; tokens without a choice cost no pass."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
import tiny
import torch
from constrained import EVERYTHING, KINDS, PERSON, begin, run, schema, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenglass.model.errors import NothingPossible, ParameterError
from tokenglass.model.sampling.constraints import Constraint

SMALL = st.integers(0, 3)
NAMES = st.sampled_from(["a", "name", "größe", 'quo"te', "<|mask|>"])


def number_schema(lower: str, least: float, width: int) -> dict[str, Any]:
    least = round(least, 3)
    return {"type": "number", lower: least, "maximum": round(least + width, 3)}


VALUES = (
    st.text(max_size=5) | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9).map(lambda x: round(x, 3)) | st.booleans()
)
LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda n, m: {"type": "string", "minLength": n, "maxLength": n + m}, st.integers(0, 2), st.integers(0, 3)
    ),
    st.builds(lambda n, m: {"type": "integer", "minimum": n, "maximum": n + m}, st.integers(-9, 9), st.integers(0, 99)),
    st.builds(number_schema, st.sampled_from(["minimum", "exclusiveMinimum"]), st.floats(-9, 9), st.integers(1, 9)),
    st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds(lambda value: {"const": value}, VALUES),
    st.sampled_from([{"type": "string", "pattern": "^[a-f]{2}-[0-9]{1,3}$"}, {"type": "string", "format": "date"}]),
)


def objects(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def build(properties: dict[str, Any], optional: set[str]) -> dict[str, Any]:
        required = [name for name in properties if name not in optional]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    return st.builds(build, st.dictionaries(NAMES, parts, max_size=3), st.sets(NAMES, max_size=2))


SCHEMAS = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        objects(parts),
        st.builds(lambda part, n: {"type": "array", "items": part, "maxItems": n}, parts, SMALL),
        st.builds(lambda options: {"anyOf": options}, st.lists(parts, min_size=1, max_size=3)),
        st.builds(lambda items: {"type": "array", "prefixItems": items, "items": False}, st.lists(parts, max_size=2)),
        st.builds(lambda part, n: {"type": "object", "additionalProperties": part, "maxProperties": n}, parts, SMALL),
    ),
    max_leaves=5,
)


@pytest.mark.parametrize("kind", EVERYTHING)
@settings(max_examples=40)
@given(content=SCHEMAS, seed=st.integers(0, 1000))
def test_json_fits_its_schema_or_had_no_room_to_end(kind: str, content: Any, seed: int) -> None:
    ran = run(schema(content), seed, kind=kind)

    if ran.reason == "length":
        assert len(ran.choices) == 200
    else:
        assert ran.reason == "eos"
        jsonschema.Draft202012Validator(content).validate(json.loads(ran.text))


def regexes(*literals: str) -> st.SearchStrategy[str]:
    return st.recursive(
        st.sampled_from(literals),
        lambda parts: st.one_of(
            st.lists(parts, min_size=1, max_size=3).map("".join),
            st.builds("(?:{}|{})".format, parts, parts),
            st.builds("(?:{}){{{},3}}".format, parts, st.integers(0, 3)),
        ),
        max_leaves=5,
    )


PLAIN = ("a", "b", "fox", " ", "\\.", "[a-c]", "(?:the|bear)")  # what each tokenizer has pieces for
REGEXES = regexes(*PLAIN, "é", "日", "[^a-y]", "\\(")


@pytest.mark.parametrize("kind", EVERYTHING)
@settings(max_examples=40)
@given(regex=REGEXES, seed=st.integers(0, 1000))
def test_the_whole_text_matches_the_regex(kind: str, regex: str, seed: int) -> None:
    ran = run(Constraint("regex", (regex,)), seed, kind=kind)

    assert ran.reason == "length" or (ran.reason == "eos" and re.fullmatch(regex, ran.text))


@settings(max_examples=40)
@given(regex=regexes(*PLAIN), seed=st.integers(0, 1000))
def test_the_whole_text_matches_the_regex_where_pieces_begin_with_spaces(regex: str, seed: int) -> None:
    ran = run(Constraint("regex", (regex,)), seed, kind="metaspace")

    assert ran.reason == "length" or (ran.reason == "eos" and re.fullmatch(regex, ran.text))


@pytest.mark.parametrize("seed", range(4))
def test_any_json_is_an_object_or_an_array(seed: int) -> None:
    ran = run(Constraint("json"), seed, max_new_tokens=400)

    assert ran.reason in ("eos", "length")
    assert ran.text[0] in "[{"
    if ran.reason == "eos":
        assert isinstance(json.loads(ran.text), dict | list)


@pytest.mark.parametrize("seed", range(4))
def test_a_text_fits_its_grammar(seed: int) -> None:
    ran = run(Constraint("grammar", ('start: "sum" (" " NUMBER){2,4} ".\\n"\nNUMBER: /[1-9]/\n',)), seed)

    assert re.fullmatch(r"sum( [1-9]){2,4}\.\n", ran.text)


CHOICES = ("yes", "no", "nobody", " said", "a<|mask|>b", "two\nlines", "日本語", "été", "$(x|y)*\\")


@pytest.mark.parametrize("kind", EVERYTHING)
@pytest.mark.parametrize("text", CHOICES)
def test_every_choice_can_be_written(kind: str, text: str) -> None:
    state, tokenizer = begin(Constraint("choice", CHOICES), kind), tokenizer_of(kind)
    left = text.encode()
    while left:
        allowed = np.flatnonzero(state.mask().allowed)
        token_id = max(
            (i for i in allowed if left.startswith(tokenizer.piece(i))), key=lambda i: len(tokenizer.piece(i))
        )
        state.advance(int(token_id))
        left = left[len(tokenizer.piece(token_id)) :]

    ends = state.mask().allowed
    assert ends is not None
    assert all(ends[token_id] for token_id in KINDS[kind][1])


@pytest.mark.parametrize("kind", EVERYTHING)
def test_nothing_but_the_choices_is_written(kind: str) -> None:
    written = {run(Constraint("choice", CHOICES), seed, kind=kind).text for seed in range(25)}

    assert len(written) > 1
    assert written <= set(CHOICES)


def test_a_text_that_the_tokenizer_cannot_go_on_with_ends_with_its_reason() -> None:
    ran = run(Constraint("choice", ("the fox {said}",)), kind="metaspace")

    assert ran.reason == "constraint"
    assert ran.text
    assert "the fox {said}".startswith(ran.text)
    with pytest.raises(ParameterError, match="no text"):
        begin(Constraint("choice", ("{said}",)), "metaspace")


def test_a_text_without_a_choice_takes_no_pass_of_its_own() -> None:
    ran = run(Constraint("choice", ("the fox and the hen",)))

    assert ran.text == "the fox and the hen"
    assert ran.reason == "eos"
    assert [step.phase for step in ran.steps] == ["prefill"]
    assert {choice.status for choice in ran.choices} == {"forced"}
    assert {choice.logprob for choice in ran.choices} == {None}


@pytest.mark.parametrize("seed", range(4))
def test_forced_tokens_are_computed_with_the_token_after_them(seed: int) -> None:
    ran = run(schema(PERSON), seed)
    sampled = [choice for choice in ran.choices if choice.status == "sampled"]

    assert any(choice.status == "forced" for choice in ran.choices)
    assert len(ran.steps) <= len(sampled) + 1
    for step, after in itertools.pairwise(ran.steps):
        assert after.num_input_tokens == len(step.choices)


@pytest.mark.parametrize("kind", EVERYTHING)
def test_forced_tokens_are_those_of_the_tokenizer(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    usual = tokenizer.encode_bare("x the fox said")
    forced = begin(Constraint("choice", (" the fox said",)), kind).forced_ids()

    assert tuple(forced[:-1]) == usual[-len(forced) + 1 :]
    assert forced[-1] in KINDS[kind][1]


def test_end_tokens_are_allowed_exactly_where_the_text_may_end() -> None:
    tokenizer, ends = tokenizer_of("byte fallback"), frozenset({1, 2})
    state = Constraint("regex", ("ab(cb)*",)).begin(tokenizer, ends)
    seen = []
    for char in "abcb":
        state.advance(tokenizer.backend.token_to_id(char))
        allowed = state.mask().allowed
        assert allowed is not None
        seen.append([bool(allowed[token_id]) for token_id in ends])

    assert seen == [[False, False], [True, True], [False, False], [True, True]]


def test_an_end_token_that_has_to_come_is_forced_once() -> None:
    state = Constraint("regex", ("a",)).begin(tokenizer_of("byte fallback"), frozenset({1, 2}))
    forced = state.forced_ids()

    assert forced[1:] == [1]
    assert state.forced_ids() == forced
    for token_id in forced:
        state.advance(token_id)
    assert state.forced_ids() == []
    with pytest.raises(NothingPossible, match="nothing may follow"):
        state.mask()


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), regex=REGEXES)
def test_after_a_rewind_the_same_may_come_as_before(seed: int, regex: str) -> None:
    draw, constraint = random.Random(seed), Constraint("regex", (regex,))
    state, masks, ended = begin(constraint), [], False
    masks.append(state.mask().allowed)
    for _ in range(30):
        if ended or (len(masks) > 1 and draw.random() < 0.3):
            count = draw.randint(1, len(masks) - 1)
            state.rewind(count)
            del masks[len(masks) - count :]
            ended = False
        else:
            token_id = int(draw.choice(np.flatnonzero(masks[-1])))
            state.advance(token_id)
            ended = token_id in KINDS["byte level"][1]
            masks.append(None if ended else state.mask().allowed)
        if not ended:
            assert np.array_equal(state.mask().allowed, masks[-1])


def test_a_token_that_does_not_fit_can_be_taken_back() -> None:
    state = begin(Constraint("regex", ("[0-9]{4}",)))
    before = state.mask().allowed
    for token_id in tokenizer_of("byte level").encode_bare("the fox"):
        state.advance(token_id)
    with pytest.raises(NothingPossible):
        state.mask()
    state.rewind(len(tokenizer_of("byte level").encode_bare("the fox")))

    assert np.array_equal(state.mask().allowed, before)


def test_a_fork_goes_its_own_way() -> None:
    tokenizer, state = tokenizer_of("byte level"), begin(Constraint("regex", ("[ab]c?",)))
    fork = state.fork()
    state.advance(tokenizer.backend.token_to_id("a"))
    state.advance(tokenizer.backend.token_to_id("c"))

    assert state.forced_ids() == [0]
    assert fork.forced_ids() == []
    assert np.array_equal(fork.mask().allowed, begin(Constraint("regex", ("[ab]c?",))).mask().allowed)


@pytest.mark.parametrize("seed", range(8))
def test_a_ban_rewinds_within_the_constraint(seed: int) -> None:
    ran = run(Constraint("regex", ("[abc]{12}",)), seed, bans=("ab", "ca"))

    assert ran.reason == "eos"
    assert re.fullmatch("[abc]{12}", ran.text)
    assert "ab" not in ran.text
    assert "ca" not in ran.text
    assert any(step.rewound_to is not None for step in ran.steps)


def test_a_ban_of_all_that_fits_ends_the_run_with_its_reason() -> None:
    ran = run(Constraint("choice", ("the fox",)), bans=("fox",))

    assert ran.reason == "constraint"
    assert "fox" not in ran.text


@pytest.mark.parametrize("options", [{"min_new_tokens": 50}, {"ignore_eos": True}])
def test_a_text_that_may_not_end_where_it_must_ends_the_run_with_its_reason(options: dict[str, Any]) -> None:
    ran = run(Constraint("choice", ("the fox", "the bear")), **options)

    assert ran.reason == "constraint"
    assert ran.text in ("the fox", "the bear")


def test_a_forbidden_candidate_says_what_forbids_it() -> None:
    wish = tokenizer_of("byte level").encode_bare(" fox")[0]
    size = tokenizer_of("byte level").vocab_size
    ran = run(
        schema({"type": "boolean"}), script=lambda _: 30.0 * torch.nn.functional.one_hot(torch.tensor(wish), size)
    )
    (candidate,) = [candidate for candidate in ran.choices[0].candidates if candidate.token_id == wish]

    assert candidate.removed_by == "json-schema"
    assert candidate.prob == 0
    assert ran.choices[0].rank != 1
    assert ran.text in ("true", "false")


def test_ids_that_only_pad_the_model_are_never_chosen() -> None:
    def script(length: int) -> torch.Tensor:
        logits = torch.randn(tiny.VOCAB_SIZE, generator=torch.Generator().manual_seed(length))
        logits[tokenizer_of("byte level").vocab_size :] = 30.0
        return logits

    ran = run(schema(PERSON), script=script)

    assert ran.reason == "eos"
    jsonschema.validate(json.loads(ran.text), PERSON)

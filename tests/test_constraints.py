"""What comes out fits the constraint, whatever the model would rather say; tokens without a choice cost no pass."""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.constraint import read_constraint
from cli.options.control import ControlOptions
from model.decoding.autoregressive import decode
from model.decoding.request import Request
from model.errors import NothingPossible, ParameterError
from model.sampling.constraints import Constraint, ConstraintState
from model.sampling.parameters import SamplingParameters
from model.steps import Choice, Finish, Step
from model.tokenizer import Tokenizer

KINDS: dict[str, tuple[Callable[[], Any], frozenset[int]]] = {
    "byte level": (tiny.byte_level_tokenizer, frozenset({0})),
    "byte fallback": (tiny.byte_fallback_tokenizer, frozenset({2})),
    "metaspace": (tiny.metaspace_tokenizer, frozenset({2, 0})),
}
EVERYTHING = ("byte level", "byte fallback")  # those that can write any text
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@functools.cache
def tokenizer_of(kind: str) -> Tokenizer:
    return Tokenizer(KINDS[kind][0]())


def schema(content: Any) -> Constraint:
    return Constraint("json-schema", (json.dumps(content),))


def begin(constraint: Constraint, kind: str = "byte level") -> ConstraintState:
    return constraint.begin(tokenizer_of(kind), KINDS[kind][1])


@dataclass(frozen=True)
class Ran:
    text: str
    reason: str
    steps: tuple[Step, ...]

    @property
    def choices(self) -> list[Choice]:
        return [choice for step in self.steps for choice in step.choices]


def run(
    constraint: Constraint,
    seed: int = 0,
    *,
    kind: str = "byte level",
    script: Callable[[int], torch.Tensor] | None = None,
    sampling: SamplingParameters | None = None,
    **options: Any,
) -> Ran:
    """A run of a model with random logits, or with those of a script."""
    tokenizer, eos_token_ids = tokenizer_of(kind), KINDS[kind][1]

    def noise(length: int) -> torch.Tensor:
        return 3 * torch.randn(tokenizer.vocab_size, generator=torch.Generator().manual_seed(1000 * seed + length))

    prompt_ids = tokenizer.encode("The fox said")
    request = Request(
        prompt_ids,
        seed=seed,
        sampling=sampling or SamplingParameters(temperature=1, top_p=1),
        eos_token_ids=eos_token_ids,
        constraint=constraint,
        **{"max_new_tokens": 200, **options},
    )
    engine = tiny.ScriptedEngine(script or noise, limit=600)
    records = list(decode(engine, tokenizer, request, threading.Event()))
    (finish,) = [record for record in records if isinstance(record, Finish)]
    steps = tuple(record for record in records if isinstance(record, Step))
    return Ran("".join(record.text for record in records), finish.reason, steps)


SMALL = st.integers(0, 3)
NAMES = st.sampled_from(["a", "name", "größe", 'quo"te', "<|mask|>"])


def bounded(lower: str, least: float, width: int) -> dict[str, Any]:
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
    st.builds(bounded, st.sampled_from(["minimum", "exclusiveMinimum"]), st.floats(-9, 9), st.integers(1, 9)),
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

    allowed = state.mask().allowed
    assert allowed is not None
    assert all(allowed[token_id] for token_id in KINDS[kind][1])


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
    forced = begin(Constraint("choice", (" the fox said",)), kind).forced()

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
    forced = state.forced()

    assert forced[1:] == [1]
    assert state.forced() == forced
    for token_id in forced:
        state.advance(token_id)
    assert state.forced() == []
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

    assert state.forced() == [0]
    assert fork.forced() == []
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


@pytest.mark.parametrize(
    ("name", "source", "told"),
    [
        ("regex", "a(", "regex: unclosed group"),
        ("regex", "a(?=b)", "look-ahead"),
        ("regex", r"[^\s\S]", "no text fits"),
        ("regex", "a\ud800", "not valid UTF-8"),
        ("choice", "", "empty"),
        ("grammar", 'start: "a', "grammar: 1"),
        ("grammar", "start: start", "no text fits"),
        ("grammar", 'start: %json {"$ref": "https://example.com/schema"}', "retrieving it failed"),
        ("json-schema", "{", "is not JSON"),
        ("json-schema", "[1]", "expected a JSON object"),
        ("json-schema", "false", "Unsatisfiable"),
        ("json-schema", '{"type": "strin"}', "Invalid type: strin"),
        ("json-schema", '{"type": "string", "pattern": "("}', "unclosed group"),
        ("json-schema", '{"type": "integer", "minimum": 5, "maximum": 3}', "minimum"),
        ("json-schema", '{"uniqueItems": true}', "uniqueItems"),
        ("json-schema", '{"const": NaN}', "expected value"),
        ("json-schema", '{"maximum": 180.60029013920598}', "15 digits"),
        ("json-schema", '{"exclusiveMinimum": 0, "maximum": 0.5}', "use minimum and maximum"),
        ("json-schema", '{"type": "object", "minProperties": 2}', "minProperties"),
        ("json-schema", '{"enum": [9007199254740993]}', "beyond 2^53"),
        ("json-schema", '{"x-guidance": {"lenient": true}, "not": {}}', "not"),
        ("json-schema", '{"oneOf": [{"maxLength": 5}, {"minLength": 3}]}', "oneOf"),
        ("json-schema", '{"$ref": "https://example.com/schema"}', "retrieving it failed"),
        ("json-schema", '{"$ref": "file:///etc/hostname"}', "retrieving it failed"),
        ("json-schema", '{"$ref": "#"}', "no text fits"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_line(name: Any, source: str, told: str) -> None:
    with pytest.raises(ParameterError) as raised:
        begin(Constraint(name, (source,)))

    assert told in str(raised.value)
    assert str(raised.value).startswith(f"{name}: ")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def doubling(depth: int) -> dict[str, Any]:
    """Each definition holds the one before twice."""
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for i in range(1, depth):
        definitions[f"d{i}"] = {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{i - 1}"}] * 2, "minItems": 2}
    return {"$defs": definitions, "$ref": f"#/$defs/d{depth - 1}"}


def multiplying(depth: int) -> dict[str, Any]:
    """Each definition has twice as many cases as the one before."""
    definitions: dict[str, Any] = {"d0": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}
    for i in range(1, depth):
        cases = [{"minLength": i}, {"maxLength": i + 5}]
        definitions[f"d{i}"] = {"allOf": [{"$ref": f"#/$defs/d{i - 1}"}, {"anyOf": cases}]}
    return {"$defs": definitions, "$ref": f"#/$defs/d{depth - 1}"}


@pytest.mark.parametrize(
    "constraint",
    [
        schema(doubling(40)),
        schema(multiplying(20)),
        *(Constraint("json-schema", ('{"items":' * n + "{}" + "}" * n,)) for n in (100, 500, 900, 5000, 100_000)),
        schema({"type": "string", "minLength": 10**7, "maxLength": 10**9}),
        schema({"type": "array", "minItems": 10**6, "maxItems": 10**9}),
        schema({"allOf": [{"type": "string", "pattern": "a.{40}b"}, {"type": "string", "pattern": "c.{41}d"}]}),
        schema({"enum": list(range(20_000))}),
        schema({"properties": {f"p{i}": {} for i in range(1000)}}),
        Constraint("regex", ("(.|b)*a(.|b){60}",)),
        Constraint("regex", ("((((a{0,99}b?){0,99}){0,99}){0,99}){0,99}",)),
        Constraint("regex", ("(a{300}){300}",)),
        Constraint("regex", ("(" * 100_000 + "a" + ")" * 100_000,)),
        Constraint("grammar", ("start: " + "(" * 100_000 + '"a"' + ")" * 100_000,)),
        Constraint("grammar", ('start: start start | "a" |',)),
        Constraint("grammar", ('start: b{1000000}\nb: "a" | "b"',)),
        Constraint("choice", tuple(f"choice {i}" for i in range(5000))),
    ],
    ids=lambda constraint: f"{constraint.name}: {constraint.source[0][:24]}",
)
def test_a_hostile_constraint_is_refused_or_followed_but_never_hangs(constraint: Constraint) -> None:
    try:
        outcome = run(constraint, max_new_tokens=20).reason
    except ParameterError as error:
        outcome = str(error).partition(":")[0]

    assert outcome in ("eos", "length", "constraint", constraint.name)


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)

    with pytest.raises(ParameterError, match=r'pip install "tokenglass\[constrain\]"'):
        begin(Constraint("json"))


def test_a_constraint_needs_neither_torch_nor_llguidance_before_it_begins() -> None:
    program = "import sys, cli.constraint; print({'torch', 'llguidance', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_options_become_the_constraint_that_they_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text('{"type": "null"}')

    assert read_constraint(ControlOptions()) is None
    assert read_constraint(ControlOptions(regex="a")) == Constraint("regex", ("a",))
    assert read_constraint(ControlOptions(any_json=True)) == Constraint("json")
    assert read_constraint(ControlOptions(choice=["a", "b"])) == Constraint("choice", ("a", "b"))
    assert read_constraint(ControlOptions(grammar=file)) == Constraint("grammar", ('{"type": "null"}',))
    assert read_constraint(ControlOptions(json_schema=str(file))) == schema({"type": "null"})
    assert read_constraint(ControlOptions(json_schema=' {"type": "null"}')) == Constraint(
        "json-schema", (' {"type": "null"}',)
    )


def test_wrong_options_are_refused_in_one_line(tmp_path: Path) -> None:
    latin = tmp_path / "latin"
    latin.write_bytes(b"\xff\xfe\xff")
    for options, told in [
        (ControlOptions(regex="a", any_json=True), "--regex and --json exclude each other"),
        (ControlOptions(json_schema="nowhere.json"), "nowhere.json: no such file"),
        (ControlOptions(json_schema=str(tmp_path)), "is a directory"),
        (ControlOptions(grammar=latin), "is not UTF-8 text"),
        (ControlOptions(json_schema="a\0b"), "null"),
        (ControlOptions(regex=""), "empty"),
    ]:
        with pytest.raises(ParameterError, match=re.escape(told)):
            read_constraint(options)

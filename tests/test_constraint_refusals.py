"""Constraints that cannot be followed, are hostile, or are asked for wrongly: one line, and nothing hangs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from constrained import begin, run, schema

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.run.constraint import read_constraint
from tokenglass.model.errors import ParameterError
from tokenglass.model.sampling.constraints import Constraint, ConstraintName


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("regex", "a(", "--regex: unclosed group"),
        ("regex", "a(?=b)", "look-ahead"),
        ("regex", r"[^\s\S]", "no text fits"),
        ("regex", "a\ud800", "not valid UTF-8"),
        ("choice", "", "empty"),
        ("grammar", 'start: "a', "--grammar: 1"),
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
def test_what_cannot_be_followed_is_refused_in_one_line(name: Any, source: str, reason: str) -> None:
    with pytest.raises(ParameterError) as raised:
        begin(Constraint(name, (source,)))

    assert reason in str(raised.value)
    assert str(raised.value).startswith(f"--{name}: ")
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

    assert outcome in ("eos", "length", "constraint", constraint.option)


@pytest.mark.parametrize("name", get_args(ConstraintName))
def test_without_the_library_the_message_names_the_option_and_says_how_to_get_it(
    name: ConstraintName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    constraint = Constraint(name, () if name == "json" else ("a",))

    for ask in (lambda: begin(constraint), constraint.check):
        with pytest.raises(ParameterError) as raised:
            ask()
        message = str(raised.value)
        assert message == f'--{name}: needs the llguidance library; pip install "tokenglass[constrain]"'


def test_a_constraint_needs_neither_torch_nor_llguidance_before_it_begins() -> None:
    program = (
        "import sys, tokenglass.cli.run.constraint; print({'torch', 'llguidance', 'tokenizers'} & set(sys.modules))"
    )
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
    for options, message in [
        (ControlOptions(regex="a", any_json=True), "--regex and --json exclude each other"),
        (ControlOptions(json_schema="nowhere.json"), "nowhere.json: no such file"),
        (ControlOptions(json_schema=str(tmp_path)), "not a regular file"),
        (ControlOptions(grammar=latin), "is not UTF-8 text"),
        (ControlOptions(json_schema="a\0b"), "no such file"),
        (ControlOptions(regex=""), "empty"),
    ]:
        with pytest.raises(ParameterError, match=re.escape(message)):
            read_constraint(options)

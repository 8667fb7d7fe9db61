"""Constraints in llguidance's own words, and its errors in ours."""

from __future__ import annotations

import json
from typing import Any

from model.errors import ParameterError, first_line

ANY_JSON = '{"type": ["object", "array"]}'
JSON_OPTIONS: dict[str, Any] = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,  # otherwise no token is ever forced
    "whitespace_pattern": None,
    "coerce_one_of": False,  # what comes out has to fit the schema as it is written
    "lenient": False,
}


def grammar_of(name: str, source: tuple[str, ...]) -> str:
    """The grammar that llguidance is given. Raises ParameterError for a schema that it cannot follow."""
    from llguidance import LLMatcher  # noqa: PLC0415  (an extra)

    if name == "choice":
        return LLMatcher.grammar_from_regex("|".join(f"({escaped(text)})" for text in source))
    if name == "regex":
        return LLMatcher.grammar_from_regex(source[0])
    if name == "grammar":
        return LLMatcher.grammar_from_lark(source[0])
    schema = ANY_JSON if name == "json" else checked(source[0])
    try:
        return LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS)  # type: ignore[arg-type]
    except ValueError as error:
        raise ParameterError(f"json-schema: {first_line(error)}") from None


def escaped(text: str) -> str:
    """A regex that matches exactly this text."""
    return "".join(char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text)


def checked(source: str) -> str:
    """The same schema. Raises ParameterError for what is no schema, or could be met in name only."""
    try:
        schema = json.loads(source)
        if isinstance(schema, bool):
            schema = {} if schema else {"enum": []}
        if not isinstance(schema, dict):
            raise ParameterError('json-schema: expected a JSON object, such as {"type": "object"}')
        refuse_counted_keys(schema)
        return json.dumps(schema)
    except ValueError as error:
        raise ParameterError(f"json-schema: is not JSON ({first_line(error)})") from None
    except RecursionError:
        raise ParameterError("json-schema: is nested too deeply") from None


def refuse_counted_keys(schema: object) -> None:
    """Nothing keeps the model from writing a key of its own choice twice, so a number of them cannot be promised."""
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        refuse_counted_keys(part)
    least = schema.get("minProperties") if isinstance(schema, dict) else None
    if isinstance(schema, dict) and isinstance(least, int | float):
        required = schema.get("required")
        if least > max(1, len(required) if isinstance(required, list) else 0):
            raise ParameterError("json-schema: minProperties above 1 is not supported; name the keys as required")


def reason(error: str) -> str:
    """llguidance's message in one line."""
    lines = error.strip().splitlines() or ["cannot be followed"]
    line = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    if line.startswith("NoExtension"):
        return "no text fits"
    line = "".join(char if char.isprintable() else "?" for char in line.split(". Enable 'coerce_one_of'")[0])
    return line if len(line) <= 200 else f"{line[:200]}..."

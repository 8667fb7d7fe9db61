"""Constraints in llguidance's own words, and its errors in ours."""

from __future__ import annotations

import json
import math
from typing import Any

from tokenglass.model.errors import ParameterError, first_line

LOWER = ("minimum", "exclusiveMinimum")
BOUNDS = (*LOWER, "maximum", "exclusiveMaximum")
SURE = 2**53  # up to here float64 holds every whole number
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
        return LLMatcher.grammar_from_regex("|".join(f"({escape(text)})" for text in source))
    if name == "regex":
        return LLMatcher.grammar_from_regex(source[0])
    if name == "grammar":
        return LLMatcher.grammar_from_lark(source[0])
    schema = ANY_JSON if name == "json" else check_schema(source[0])
    try:
        return LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS)  # type: ignore[arg-type]  # it takes JSON text too
    except ValueError as error:
        raise ParameterError(f"--json-schema: {first_line(error)}") from None


def escape(text: str) -> str:
    """A regex that matches exactly this text."""
    return "".join(char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text)


def check_schema(source: str) -> str:
    """The same schema. Raises ParameterError for what is no schema, or could be met in name only."""
    try:
        schema = json.loads(source)
        if isinstance(schema, bool):
            schema = {} if schema else {"enum": []}
        if not isinstance(schema, dict):
            raise ParameterError('--json-schema: expected a JSON object, such as {"type": "object"}')
        refuse_unsure(schema)
        return json.dumps(schema)
    except ValueError as error:
        raise ParameterError(f"--json-schema: is not JSON ({first_line(error)})") from None
    except RecursionError:
        raise ParameterError("--json-schema: is nested too deeply") from None


def refuse_unsure(part: object) -> None:
    """Refuse what a text could fail although llguidance lets it through. Raises ParameterError.

    It reads numbers as float64 and not to the last bit, lets an exclusive whole bound itself through where the other
    is less than 1 away, and keeps no account of keys of the model's own choice, of which one may come twice.
    """
    if isinstance(part, int) and abs(part) > SURE:
        raise ParameterError("--json-schema: a whole number beyond 2^53 cannot be told from its neighbours")
    if isinstance(part, float) and math.isfinite(part) and float(f"{part:.15g}") != part:
        raise ParameterError("--json-schema: a number of more than 15 digits cannot be told from its neighbours")
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for each in inner:
        refuse_unsure(each)
    if not isinstance(part, dict):
        return
    bounds = {name: part[name] for name in BOUNDS if is_number(part.get(name))}
    least = max((bounds[name] for name in bounds if name in LOWER), default=-math.inf)
    most = min((bounds[name] for name in bounds if name not in LOWER), default=math.inf)
    if most - least < 1 and any(bounds[name] % 1 == 0 for name in bounds if name.startswith("exclusive")):
        raise ParameterError(
            "--json-schema: exclusive bounds less than 1 apart are not supported; use minimum and maximum"
        )
    required = part.get("required")
    named = len(required) if isinstance(required, list) else 0
    if is_number(part.get("minProperties")) and part["minProperties"] > max(1, named):
        raise ParameterError("--json-schema: minProperties above 1 is not supported; name the keys as required")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def reason(error: str) -> str:
    """llguidance's message in one line."""
    lines = error.strip().splitlines() or ["cannot be followed"]
    line = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    if line.startswith("NoExtension"):
        return "no text fits"
    line = "".join(char if char.isprintable() else "?" for char in line.split(". Enable 'coerce_one_of'")[0])
    return line if len(line) <= 200 else f"{line[:200]}..."

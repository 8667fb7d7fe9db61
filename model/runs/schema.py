"""The JSON Schema of a trace's lines, from the types of the records.

`python -m tokenglass.model.runs.schema` prints it; trace.schema.json beside this file is what it prints.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from typing import Any

from tokenglass.model.records.encoder import PAIRS, field_types, optional_fields
from tokenglass.model.runs.run import SCHEMA_VERSION
from tokenglass.model.runs.trace import KINDS

BYTES = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}}
PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bytes: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    types.NoneType: {"type": "null"},
    Any: {"description": "anything"},
    float: {"type": ["number", "null"]},  # null is a number that JSON lacks
    PAIRS: {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
}


def trace_schema() -> dict[str, Any]:
    """What each line of a trace is: one of the kinds of records, with all its fields and no others."""
    definitions: dict[str, Any] = {}
    lines = [{"$ref": f"#/$defs/{refer(kind, definitions)}"} for kind in KINDS.values()]
    for name, kind in KINDS.items():
        content = definitions[kind.__name__]
        content["properties"] = {"record": {"const": name}, **content["properties"]}
        content["required"] = ["record", *content["required"]]
    definitions["Run"]["properties"]["version"] = {"const": SCHEMA_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of a tokenglass trace",
        "anyOf": lines,
        "$defs": definitions,
    }


def refer(kind: Any, definitions: dict[str, Any]) -> str:
    """The name of a record's definition, which is added where it is not there yet."""
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}
        hints = field_types(kind)
        properties = {name: schema_of(hint, definitions) for name, hint in hints.items()}
        if bytes in hints.values():
            properties["bytes"] = BYTES
        definitions[kind.__name__] |= {
            "type": "object",
            "properties": properties,
            "required": [name for name in hints if name not in optional_fields(kind)],
            "additionalProperties": False,
        }
    return str(kind.__name__)


def schema_of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN or origin is typing.Literal:
        return PLAIN.get(hint) or {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [schema_of(kind, definitions) for kind in arguments]}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1], definitions)}
    if dataclasses.is_dataclass(hint):
        return {"$ref": f"#/$defs/{refer(hint, definitions)}"}
    content: dict[str, Any]
    if origin is tuple and arguments[-1] is not ...:
        each = [schema_of(kind, definitions) for kind in arguments]
        content = {"prefixItems": each, "items": False, "minItems": len(each)}
    else:
        content = {"items": schema_of(arguments[0], definitions)}
    return {"type": "array", **content}


if __name__ == "__main__":
    json.dump(trace_schema(), sys.stdout, indent=1)
    sys.stdout.write("\n")

"""Records as JSON text, fast enough to write one for every token: a function for each type, made once from its fields.

The text is what `json.dumps` gives for the same values, spaces and all.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable
from json.encoder import encode_basestring as quoted
from typing import Any

PAIRS = tuple[tuple[str, float], ...]  # an object in JSON, absent where empty
Encode = Callable[[Any], str]
CALLS = {int: "int.__repr__", float: "number", bytes: "piece", str: "quoted"}
float_text = float.__repr__  # a numpy scalar's own names its type


def to_text(record: Any) -> str:
    """A record as a JSON object: a piece is a string, with `bytes` beside it when it is not valid UTF-8; no NaN."""
    kind: Any = type(record)
    return encoder(kind)(record)


@functools.cache
def field_types(kind: Any) -> dict[str, Any]:
    """The fields of a record and their types: those of the dataclass, or what it names in their place."""
    if hasattr(kind, "field_types"):
        types_by_name: dict[str, Any] = kind.field_types()
        return types_by_name
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def optional_fields(kind: Any) -> set[str]:
    """The fields that JSON leaves out where they say nothing."""
    marked = {field.name for field in dataclasses.fields(kind) if field.metadata.get("absent")}
    return marked | {name for name, hint in field_types(kind).items() if hint == PAIRS}


@functools.cache
def encoder(hint: Any) -> Encode:
    """The function that writes a value of this type, compiled from one expression over its fields."""
    names: dict[str, Any] = {"number": number, "quoted": quoted, "piece": piece, "anything": anything}
    function: Encode = eval(f"lambda value: {expression(hint, 'value', names)}", names)
    return function


def expression(hint: Any, value: str, names: dict[str, Any]) -> str:
    """Python that writes `value`, itself an expression; it may use `names`, and add the functions of other records."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in CALLS or origin is typing.Literal:
        return f"{CALLS.get(hint, 'quoted')}({value})"
    if origin in (types.UnionType, typing.Union) and len(arguments) == 2 and types.NoneType in arguments:
        (kind,) = (kind for kind in arguments if kind is not types.NoneType)
        return f"('null' if {value} is None else {expression(kind, value, names)})"
    if origin is tuple and arguments[-1] is ...:
        return f"'[' + ', '.join([{expression(arguments[0], 'item', names)} for item in {value}]) + ']'"
    if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
        return f"anything({value})"
    if value != "value":
        names[hint.__name__] = encoder(hint)
        return f"{hint.__name__}({value})"
    template = ""  # of an f-string, in which braces stand twice
    for name, kind in field_types(hint).items():
        written, start = f"value.{name}", f"{', ' if template else ''}{json.dumps(name)}: "
        if kind == PAIRS:
            template += f"{{({start!r} + anything(dict({written})) if {written} else '')}}"
        elif name in optional_fields(hint):
            template += f"{{({start!r} + {expression(kind, written, names)} if {written} is not None else '')}}"
        else:
            template += f"{start}{{({expression(kind, written, names)})}}"
    return f"f'''{{{{{template}}}}}'''"


def number(value: float) -> str:
    """null for what is not finite."""
    try:
        return float_text(value) if value - value == 0 else "null"
    except TypeError:  # a whole number
        return repr(value)


@functools.lru_cache(maxsize=2**14)
def piece(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    beside = "" if text.encode() == value else f', "bytes": {list(value)}'
    return quoted(text) + beside


def anything(value: Any) -> str:
    """Any other value: what is not finite is null, a set is a sorted list."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join([anything(item) for item in value])}]"
    if isinstance(value, frozenset):
        return anything(sorted(value))
    if isinstance(value, dict):
        return "{" + ", ".join([f"{quoted(key)}: {anything(item)}" for key, item in value.items()]) + "}"
    return to_text(value) if dataclasses.is_dataclass(value) else json.dumps(value, ensure_ascii=False)

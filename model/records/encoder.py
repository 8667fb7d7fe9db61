"""Records as JSON text, fast enough to write one for every token: orjson writes what a function for each type gives,
made once from its fields.

    to_text(Finish(0, "eos", "", Totals()))    {"sequence":0,"reason":"eos","text":"",...}
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable
from typing import Any

import orjson

PAIRS = tuple[tuple[str, float], ...]  # an object in JSON, absent where empty
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what is not valid UTF-8 becomes
BYTES_AS_SUCH = "bytes"  # the field beside a piece that is not valid UTF-8
Encode = Callable[[Any], Any]


def to_text(value: Any) -> str:
    """A record, or a value with records in it, as JSON on one line: a piece is a string, with `bytes` beside it when it
    is not valid UTF-8; what is not finite is null, a set a sorted list."""
    try:
        return orjson.dumps(value, to_plain, orjson.OPT_PASSTHROUGH_DATACLASS).decode()
    except orjson.JSONEncodeError:  # it refuses half a character, and a whole number of more than 64 bits
        text = json.dumps(value, default=to_plain)
        finite = json.loads(text, parse_constant=lambda _: None)
        return json.dumps(finite, ensure_ascii=False, separators=(",", ":"))


def to_plain(value: Any) -> Any:
    """A value that JSON does not know as one that it knows, or as one that is nearer to that."""
    kind: Any = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return encoder(kind)(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if hasattr(value, "item"):  # a numpy scalar
        return value.item()
    raise TypeError(f"a {kind.__name__} is not a value of JSON")


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
def encoder(kind: Any) -> Encode:
    """The function that gives the fields of such a record as a dict, compiled from one line for each."""
    names: dict[str, Any] = {"stray_bytes": stray_bytes}
    always, beside = [], []
    for name, hint in field_types(kind).items():
        value = f"record.{name}"
        if hint == PAIRS:
            beside.append(f"if {value}: content[{name!r}] = dict({value})")
        elif name in optional_fields(kind):
            beside.append(f"if {value} is not None: content[{name!r}] = {expression(hint, value, names)}")
        else:
            always.append(f"{name!r}: {expression(hint, value, names)}")
        if hint is bytes:
            strange = f"{REPLACEMENT!r} in content[{name!r}]"
            beside.append(f"if {strange} and (stray := stray_bytes({value})): content[{BYTES_AS_SUCH!r}] = stray")
    lines = [f"content = {{{', '.join(always)}}}", *beside, "return content"]
    exec("def encode(record):\n" + "".join(f"    {line}\n" for line in lines), names)
    encode: Encode = names["encode"]
    return encode


def expression(hint: Any, value: str, names: dict[str, Any]) -> str:
    """Python that gives `value`, itself an expression, to orjson; it may use `names`, and add the functions of other
    records."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is bytes:
        return f"{value}.decode('utf-8', 'replace')"
    if origin in (types.UnionType, typing.Union) and len(arguments) == 2 and types.NoneType in arguments:
        (kind,) = (kind for kind in arguments if kind is not types.NoneType)
        inner = expression(kind, value, names)
        return inner if inner == value else f"(None if {value} is None else {inner})"
    if origin is tuple and arguments[-1] is ...:
        inner = expression(arguments[0], "item", names)
        return value if inner == "item" else f"[{inner} for item in {value}]"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        names[hint.__name__] = encoder(hint)
        return f"{hint.__name__}({value})"
    return value


def stray_bytes(piece: bytes) -> list[int] | None:
    """All bytes of a piece that its text does not tell."""
    return None if piece.decode("utf-8", "replace").encode() == piece else list(piece)

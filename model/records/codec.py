"""Records as JSON values and back, by the types of their fields."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import TokenglassError, TraceError
from tokenglass.model.records.encoder import BYTES_AS_SUCH, PAIRS, field_types, to_text

MAX_DEPTH = 8  # of lists and objects in a value of any type
MAX_INTEGER = 2**64  # a seed is smaller


def to_dict(record: Any) -> dict[str, Any]:
    """A record as the JSON values that its text has."""
    content: dict[str, Any] = json.loads(to_text(record))
    return content


def from_dict(kind: Any, content: Any) -> Any:
    """The inverse of `to_dict`; unknown fields are ignored, those that are missing take their defaults.

    Raises TraceError where a field has another type, or the record refuses its value.
    """
    if not isinstance(content, dict):
        raise TraceError(f"trace: expected an object for {kind.__name__}, found {type(content).__name__}")
    values = {}
    for field, hint in field_types(kind).items():
        if field not in content:
            continue
        if hint is bytes:
            values[field] = _piece(content, field)
        else:
            values[field] = _from_json(hint, content[field], f"{kind.__name__}.{field}")
    try:
        return kind(**values)
    except TypeError:
        missing = [field for field in _required(kind) if field not in values]
        raise TraceError(f"trace: {kind.__name__} without {', '.join(missing)}") from None
    except TokenglassError as error:
        raise TraceError(f"trace: {kind.__name__}: {error}") from None


def _required(kind: Any) -> tuple[str, ...]:
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return tuple(f.name for f in fields if f.default is missing and f.default_factory is missing)


def _piece(content: dict[str, Any], field: str) -> bytes:
    exact = content.get(BYTES_AS_SUCH)
    if isinstance(exact, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in exact):
        return bytes(exact)
    text = content.get(field)
    if not isinstance(text, str):
        raise TraceError(f"trace: {field} is {quote(text)}; expected text")
    return text.encode("utf-8", "replace")


def _from_json(hint: Any, value: Any, name: str) -> Any:
    """A JSON value as `hint` wants it. Raises TraceError where it does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _from_union(arguments, value, name)
    fits, convert = True, value
    if hint == PAIRS:
        fits = isinstance(value, dict)
        convert = tuple((key, _from_json(float, item, name)) for key, item in value.items()) if fits else value
    elif origin is typing.Literal:
        fits = value in arguments
    elif origin in (tuple, frozenset) and isinstance(value, list):
        kinds = arguments if origin is tuple and arguments[-1] is not ... else arguments[:1] * len(value)
        fits = len(kinds) == len(value)
        convert = origin(_from_json(kind, item, name) for kind, item in zip(kinds, value, strict=False))
    elif origin is dict and isinstance(value, dict):
        convert = {key: _from_json(arguments[1], item, name) for key, item in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        convert = from_dict(hint, value)
    elif hint is float:  # null stands for an infinite or undefined number
        fits = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        convert = math.nan if value is None else _float(value) if fits else value
    elif hint is Any:
        fits = is_sane(value)
    else:
        fits = isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool))
        fits = fits and is_sane(value)
    if not fits:
        raise TraceError(f"trace: {name} is {quote(value)}, which does not fit")
    return convert


def is_sane(value: Any, depth: int = 0) -> bool:
    """Whether a JSON value is nested and its whole numbers are large as those of a run may be."""
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return depth < MAX_DEPTH and all(is_sane(item, depth + 1) for item in inner)
    return not isinstance(value, int) or abs(value) <= MAX_INTEGER


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.nan


def _from_union(options: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and types.NoneType in options:
        return None
    if float in options and type(value) is int and abs(value) <= 2**53:  # it is written as it was read
        return value
    errors = []
    for option in options:
        try:
            return _from_json(option, value, name)
        except TraceError as error:
            errors.append(error)
    raise errors[0]

"""Records as JSON lines: one run line, then one line per record. No torch here."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenglass.model.config.fields import shown
from tokenglass.model.errors import TokenglassError
from tokenglass.model.records.steps import Finish, Step

SCHEMA_VERSION = 1
MAX_DEPTH = 8  # of lists and objects in a parameter
MAX_INTEGER = 2**64  # a seed is smaller
PAIRS = tuple[tuple[str, float], ...]  # an object in JSON, absent where empty


class TraceError(TokenglassError):
    """A trace line is not one of ours, or of a version this program does not know."""


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a run depends on."""

    version: int
    model: str
    model_fingerprint: str
    tokenizer_fingerprint: str
    prompt: str
    prompt_ids: tuple[int, ...]
    parameters: dict[str, Any]
    seed: int
    dtype: str
    device: str
    threads: int
    versions: dict[str, str]


def to_line(record: Run | Step | Finish) -> str:
    """One JSON object on one line, `record` naming its kind."""
    kind = type(record).__name__.lower()
    return json.dumps({"record": kind, **to_dict(record)}, ensure_ascii=False, allow_nan=False)


def from_line(line: str) -> Run | Step | Finish:
    """The record of one line. Raises TraceError."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"trace: not a JSON line ({error})") from None
    kinds: dict[str, type[Run] | type[Step] | type[Finish]] = {"run": Run, "step": Step, "finish": Finish}
    kind = content.get("record") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise TraceError(f"trace: unknown record {shown(kind)}; expected {', '.join(kinds)}")
    if kind == "run" and content.get("version") != SCHEMA_VERSION:
        raise TraceError(
            f"trace: version {shown(content.get('version'))} is unknown; this program reads version {SCHEMA_VERSION}"
        )
    record: Run | Step | Finish = from_dict(kinds[kind], content)
    return record


def read(lines: typing.Iterable[str]) -> Iterator[Run | Step | Finish]:
    """The records of a whole trace. Raises TraceError with the line's number."""
    for number, line in enumerate(lines, start=1):
        try:
            yield from_line(line)
        except TraceError as error:
            raise TraceError(f"line {number}: {error}") from None


def to_dict(record: Any) -> dict[str, Any]:
    """A record as JSON values: a piece is a string, with `bytes` beside it when it is not valid UTF-8; no NaN."""
    content: dict[str, Any] = {}
    kind: Any = type(record)
    for field in _fields(kind):
        value = getattr(record, field)
        if _hints(kind)[field] == PAIRS:
            if value:
                content[field] = {name: to_json(number) for name, number in value}
        elif isinstance(value, bytes):
            content[field] = value.decode("utf-8", "replace")
            if content[field].encode() != value:
                content["bytes"] = list(value)
        else:
            content[field] = to_json(value)
    return content


def from_dict(kind: Any, content: Any) -> Any:
    """The inverse of `to_dict`; unknown fields are ignored. Raises TraceError where a field has another type."""
    if not isinstance(content, dict):
        raise TraceError(f"trace: expected an object for {kind.__name__}, found {type(content).__name__}")
    values = {}
    hints = _hints(kind)
    for field in _fields(kind):
        if hints[field] is bytes:
            values[field] = _piece(content, field)
        elif field in content:
            values[field] = _from_json(hints[field], content[field], f"{kind.__name__}.{field}")
    try:
        return kind(**values)
    except TypeError:
        missing = [field for field in _fields(kind) if field not in values]
        raise TraceError(f"trace: {kind.__name__} without {', '.join(missing)}") from None


@functools.cache
def _fields(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def to_json(value: Any) -> Any:
    """A value as JSON has it: records as objects, null for a number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return to_dict(value) if dataclasses.is_dataclass(value) else value


def _piece(content: dict[str, Any], field: str) -> bytes:
    exact = content.get("bytes")
    if isinstance(exact, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in exact):
        return bytes(exact)
    text = content.get(field)
    if not isinstance(text, str):
        raise TraceError(f"trace: {field} is {shown(text)}; expected text")
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
    elif origin is tuple and isinstance(value, list):
        convert = tuple(_from_json(arguments[0], item, name) for item in value)
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
        raise TraceError(f"trace: {name} is {shown(value)}, which does not fit")
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
    errors = []
    for option in options:
        try:
            return _from_json(option, value, name)
        except TraceError as error:
            errors.append(error)
    raise errors[0]

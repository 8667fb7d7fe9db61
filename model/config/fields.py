"""The fields of an untrusted config.json, one typed question at a time."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any

from tokenglass.model.errors import ConfigError

MAX_INTEGER = 2**53  # what a float still holds exactly
MAX_SHOWN = 80  # characters
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxstring, SHORT.maxother = 2, 60, 60


class Fields:
    """A JSON object that answers with the type asked for, and remembers what it was asked.

    `where` begins each message. A field that is null counts as absent. Every answer raises ConfigError where the
    field is absent without a default, or has another type.
    """

    def __init__(self, raw: Mapping[str, Any], where: str = "config.json", notes: list[str] | None = None):
        self.raw = raw
        self.where = where
        self.notes: list[str] = [] if notes is None else notes  # what the user should know, parts' notes included
        self.asked: set[str] = set()

    def get(self, key: str) -> Any:
        self.asked.add(key)
        return self.raw.get(key)

    def wrong(self, key: str, expected: str) -> ConfigError:
        return ConfigError(f"{self.where}: {key} is {quote(self.raw.get(key))}; expected {expected}")

    def refuse(self, *keys: str) -> None:
        """Raises ConfigError where one of these options, which are not built, is set."""
        for key in keys:
            if self.get(key):
                raise ConfigError(
                    f"{self.where}: {key} {quote(self.raw[key])} is not supported for {self.raw.get('model_type')}; "
                    "it would change the numbers"
                )

    def ignore(self, keys: Collection[str]) -> None:
        """Note fields that are not used, as transformers does not use them."""
        if keys:
            few = first_few([f"{shown_name(key)} {quote(self.raw[key])}" for key in keys])
            self.notes.append(f"{self.where}: not used, as in transformers: {few}")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.get(key)
        value = default if value is None else value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "a whole number")
        if abs(value) > MAX_INTEGER:
            raise ConfigError(f"{self.where}: {key} is too large a number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "a number")
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{self.where}: {key} is too large a number") from None

    def number_or_none(self, key: str) -> float | None:
        return None if self.get(key) is None else self.number(key)

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def part(self, key: str) -> Fields:
        """The object in a field; an empty one where it is absent."""
        value = self.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(key, "an object")
        return Fields(value or {}, f"{self.where}: {key}", self.notes)

    def rename(self, names: Mapping[str, str]) -> Fields:
        """The same fields where some have a second name, which wins."""
        return self.replace({own: self.raw[other] for other, own in names.items() if other in self.raw})

    def replace(self, values: Mapping[str, Any]) -> Fields:
        """The same fields but for these; what they are asked counts as asked here."""
        fields = Fields({**self.raw, **values}, self.where, self.notes)
        fields.asked = self.asked
        return fields

    def items(self, key: str, length: int, *, or_more: bool = False) -> tuple[Any, ...] | None:
        """A list with one item per layer or per pair of dimensions, or the first items of a longer one."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) < length or (len(value) > length and not or_more):
            raise self.wrong(key, f"a list of {length}")
        return tuple(value[:length])

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        values = self.items(key, length)
        if values is None or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            raise self.wrong(key, f"a list of {length} numbers")
        try:
            return tuple(map(float, values))
        except OverflowError:
            raise ConfigError(f"{self.where}: {key} holds too large a number") from None


def quote(value: Any) -> str:
    """An untrusted value in a message: as Python writes it, escaped, and never long."""
    text = SHORT.repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def shown_name(name: str) -> str:
    """An untrusted name in a message: as it is where that is printable and short."""
    return name if name.isprintable() and len(name) <= MAX_SHOWN else quote(name)


def first_few(texts: Collection[str], limit: int = 4) -> str:
    """The beginning of a list in a message."""
    few = ", ".join(islice(texts, limit))
    return few if len(texts) <= limit else f"{few} and {len(texts) - limit:,} more"


def nearest_first(name: object, names: Collection[str]) -> str:
    """The beginning of a list of names in a message, those first that are most like an untrusted one."""
    near = get_close_matches(name[:MAX_SHOWN], names) if isinstance(name, str) else []
    return first_few([*near, *(each for each in names if each not in near)])

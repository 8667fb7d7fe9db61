"""What a way of quantising is, as far as its files go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.formats.parts import Parts
from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.errors import ConfigError

WEIGHT = "weight"  # the role that an ordinary matrix has too
MOST_GROUP = 2**16


@dataclass(frozen=True, slots=True)
class Method:
    """How files of this method hold a matrix NAME.weight: as NAME.ROLE for some of the roles, which `read` understands.

    `read` reads scales and unpacks no weights. It raises CheckpointError for parts that do not fit.
    """

    name: str  # for people
    roles: Collection[str]
    read: Callable[[Parts], CodedMatrix]
    stacked: bool = False  # matrices are those of all experts, and NAME has no .weight: their parts are NAME_ROLE

    def role_of(self, name: str) -> str | None:
        """What a tensor of this name stands for, in a matrix; None for a tensor that is no part of one."""
        mark = "_" if self.stacked else "."
        return max((role for role in self.roles if name.endswith(f"{mark}{role}")), key=len, default=None)

    def unpacked_name(self, name: str) -> str:
        """The name of the matrix that a tensor is a part of; of any other tensor, its own."""
        role = self.role_of(name)
        if role is None:
            return name
        return name.removesuffix(f"_{role}") if self.stacked else f"{name.removesuffix(role)}{WEIGHT}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The bits of a code and the columns of a group (-1: whole rows) that a config names; files have one of them."""

    bits: frozenset[int]
    groups: frozenset[int]

    @staticmethod
    def of(objects: Collection[Mapping[str, Any]], where: str, bits_key: str = "bits") -> Sizes:
        """All that these objects name. Raises ConfigError for absurd ones."""
        fields = [Fields(raw, where) for raw in objects]
        bits = {one.integer(bits_key) for one in fields if one.get(bits_key) is not None}
        groups = {one.integer("group_size") for one in fields if one.get("group_size") is not None}
        for size in bits - set(range(1, 9)):
            raise ConfigError(f"{where}: {bits_key} is {quote(size)}; expected from 1 to 8")
        for size in groups - {-1, *range(1, MOST_GROUP)}:
            raise ConfigError(f"{where}: group_size is {quote(size)}; expected -1, or from 1 to {MOST_GROUP - 1:,}")
        return Sizes(frozenset(bits), frozenset(groups))

    def __str__(self) -> str:
        """As in "4 bits in groups of 128"."""
        groups = " or ".join("rows" if size == -1 else f"groups of {size}" for size in sorted(self.groups))
        return f"{' or '.join(map(str, sorted(self.bits)))} bits" + (f" in {groups}" if groups else "")


def known_value(fields: Fields, key: str, known: Collection[str], default: str) -> str:
    """The value of an option, in lower case: one of those that are read. Raises ConfigError."""
    value = fields.text(key, default).lower()
    if value not in known:
        raise ConfigError(
            f"{fields.where}: {key} {quote(value)} is not read (read: {', '.join(known)}); "
            "take another release of the model"
        )
    return value

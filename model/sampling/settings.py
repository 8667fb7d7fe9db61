"""The settings of a sampler: name, range, value that does nothing, option and help line of each.

A sampler's fields carry them. The fields of SamplingParameters, the options of the command line, the keys of
generation_config.json and the lines of a summary are derived from them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tokenglass.model.errors import ParameterError

if TYPE_CHECKING:
    from tokenglass.model.text.tokenizer import Tokenizer

MOST = sys.float_info.max
KEY = "setting"  # in the metadata of a sampler's field

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting by its `name` in SamplingParameters and in traces; without `flags` the command line has none."""

    name: str
    default: Any  # where neither an option nor the checkpoint says
    off: Any  # the sampler whose first setting this is does nothing there
    flags: tuple[str, ...]
    help: str

    def check(self, value: Any) -> None:
        """Raises ParameterError for a value out of the range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Setting):
    """A number between `least` and `most`, which `expected` tells in words; whole where its default is."""

    least: float
    most: float
    expected: str
    in_transformers: float | None  # what generation_config.json means by leaving the name out; None: it has no such key

    @property
    def is_whole(self) -> bool:
        return isinstance(self.default, int)

    def check(self, value: Any) -> None:
        if not self.least <= value <= self.most:
            raise ParameterError(f"{self.name} is {value}; expected {self.expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts(Setting):
    """Something that an option gives as texts, as often as it is repeated."""

    metavar: str
    read: Callable[[Sequence[str], Tokenizer, int], Any]  # the value, from the texts and the vocabulary's size
    otherwise: tuple[str, ...]  # what is read where the sampler is on and none was given


def number(
    name: str,
    default: T,
    *,
    least: float,
    most: float = MOST,
    expected: str,
    help: str,  # noqa: A002  (Typer's own word)
    off: T | None = None,
    flags: tuple[str, ...] | None = None,
    in_transformers: float | None = None,
) -> T:
    """The field of a Number. It is off at its default and has the option of its name where nothing else is said."""
    setting = Number(
        name=name,
        default=default,
        off=default if off is None else off,
        flags=(f"--{name.replace('_', '-')}",) if flags is None else flags,
        help=help,
        least=least,
        most=most,
        expected=expected,
        in_transformers=in_transformers,
    )
    return field(default=default, metadata={KEY: setting})


def texts(
    name: str,
    default: T,
    *,
    flags: tuple[str, ...],
    metavar: str,
    help: str,  # noqa: A002  (Typer's own word)
    read: Callable[[Sequence[str], Tokenizer, int], T],
    otherwise: tuple[str, ...] = (),
) -> T:
    """The field of Texts; off at its default."""
    setting = Texts(
        name=name,
        default=default,
        off=default,
        flags=flags,
        help=help,
        metavar=metavar,
        read=read,
        otherwise=otherwise,
    )
    return field(default=default, metadata={KEY: setting})

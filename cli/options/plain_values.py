"""Values that are plain, read without a validator.

For the first value of a command line, Typer imports pydantic and builds a validator for each parameter, which takes
longer than numpy, tokenizers and Typer itself. An option that is left out, a text, digits, the name of a choice and a
path need none. All others, and whatever may be wrong, go to Typer, whose messages they get.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from typer.core import TyperCommand
from typer.models import ParameterInfo

FILE = {
    "exists": False,
    "file_okay": True,
    "dir_okay": True,
    "writable": False,
    "resolve_path": False,
    "path_type": None,
}
DIGITS = {int: re.compile(r"-?[0-9]{1,18}"), float: re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")}


class PlainCommand(TyperCommand):
    """A command that reads plain values itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        read_plain_values(self, ctx)
        return super().parse_args(ctx, args)


def read_plain_values(command: Any, ctx: Any) -> None:
    """Let the parameters of a command, or of a group of commands, read plain values themselves."""
    hints = inspect.signature(command.callback, eval_str=True).parameters if command.callback is not None else {}
    for parameter in command.get_params(ctx):  # those that Typer adds too: help and completion
        if "process_value" not in vars(parameter):
            kind = kind_of(hints[parameter.name].annotation) if parameter.name in hints else Kind()
            parameter.process_value = partial(read, parameter, kind, parameter.process_value)


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a parameter's plain values, and the limits of numbers; None: it has none but its default."""

    type: Any = None
    least: float | None = None
    most: float | None = None

    def value(self, argument: Any) -> Any:
        """One value of the command line, or a default. Raises ValueError where it is not plain."""
        if self.type is None:
            raise ValueError
        if type(argument) is self.type and self.type is not str:
            return argument
        if not isinstance(argument, str):
            raise ValueError
        argument.encode()  # what is no Unicode raises UnicodeEncodeError, a ValueError
        if self.type in DIGITS and not DIGITS[self.type].fullmatch(argument):
            raise ValueError
        value = self.type(argument)
        if self.type is Path and value.exists() and not os.access(value, os.R_OK):
            raise ValueError
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            raise ValueError
        return value


def kind_of(hint: Any) -> Kind:
    """What the annotation of a parameter says of its values."""
    if get_origin(hint) is not Annotated:
        return Kind()
    inner, info = get_args(hint)[:2]
    own_ways = ("parser", "click_type", "clamp")  # of reading a value; no version of Typer has all of them
    if not isinstance(info, ParameterInfo) or any(getattr(info, name, None) for name in own_ways):
        return Kind()
    (inner, *others) = [part for part in get_args(inner) or (inner,) if part is not NoneType]
    (inner,) = get_args(inner) or (inner,)  # of a list
    is_file = inner is Path and all(getattr(info, name, usual) == usual for name, usual in FILE.items())
    is_named = isinstance(inner, type) and issubclass(inner, Enum)
    is_plain = not others and (inner is str or inner in DIGITS or is_named or is_file)
    return Kind(inner, info.min, info.max) if is_plain else Kind()


def read(parameter: Any, kind: Kind, by_typer: Callable[[Any, Any], Any], context: Any, argument: Any) -> Any:
    """A plain value, or what Typer makes of it. Raises what Typer raises."""
    if parameter.required and not argument:
        return by_typer(context, argument)
    is_list = getattr(parameter, "multiple", False) or parameter.nargs == -1
    try:
        value: Any = () if is_list else None
        if argument is not None:
            value = [kind.value(item) for item in argument] if is_list else kind.value(argument)
    except (ValueError, OSError):
        return by_typer(context, argument)
    return value if parameter.callback is None else parameter.callback(context, parameter, value)

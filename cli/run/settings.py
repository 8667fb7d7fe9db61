"""A setting changed by its name while a command runs, with the checks and the messages of its option."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, fields, replace
from typing import Any, TypeVar

import typer

from tokenglass.cli.options.aliases import with_dashes
from tokenglass.cli.options.command import Command
from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.usage import usage_message
from tokenglass.model.errors import ParameterError

Group = TypeVar("Group", ControlOptions, SamplingOptions)


def change(setting: str, control: ControlOptions, sampling: SamplingOptions) -> tuple[ControlOptions, SamplingOptions]:
    """The options with one of them set, as in "temperature 0.5" or "--stop 'The end'". Raises ParameterError."""
    try:
        first, *values = shlex.split(setting)
        if not (name := first.lstrip("-")):
            raise ValueError
    except ValueError:  # no word at all, or a quotation mark without its other half
        raise ParameterError("name a setting and its value, as in /set temperature 0.5") from None
    arguments = [f"-{name}" if len(name) == 1 else f"--{name}", *values]
    return change_all(arguments, control, sampling, "as in /set temperature 0.5")


def change_all(
    arguments: list[str], control: ControlOptions, sampling: SamplingOptions, advice: str
) -> tuple[ControlOptions, SamplingOptions]:
    """The options with others set, as on a command line. Raises ParameterError, which ends with the advice."""
    changed: list[tuple[ControlOptions, SamplingOptions]] = []

    @flat
    def options(control: ControlOptions, sampling: SamplingOptions) -> None:
        changed.append((control, sampling))

    app = typer.Typer(add_completion=False, context_settings={"token_normalize_func": with_dashes})
    app.command(cls=Command, add_help_option=False)(options)
    try:
        app(arguments, prog_name="/set", standalone_mode=False)
    except typer.TyperException as error:
        raise ParameterError(usage_message(error, arguments, advice)) from None
    (given_control, given_sampling) = changed[0]
    return merge(control, given_control), merge(sampling, given_sampling)


def merge(options: Group, others: Group) -> Group:
    """The options, but for those that are given."""
    changes: dict[str, Any] = {}
    for each in fields(others):
        value = getattr(others, each.name)
        if isinstance(value, dict):
            changes[each.name] = {**getattr(options, each.name), **value}
        elif each.default is MISSING or value != each.default:
            changes[each.name] = value
    return replace(options, **changes)

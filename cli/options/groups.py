"""Groups of options as parameters: a command takes a few dataclasses, and Typer sees each of their options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields, is_dataclass
from typing import Any, get_type_hints

OPTIONS = "options"  # in the metadata of a field


def several(options: Mapping[str, Any]) -> Any:
    """The field of a group that holds many options, by name with their annotations, as a dict of those that are given.

    For options that are derived from a table; None is what stands where one is not given.
    """
    return field(default_factory=dict, metadata={OPTIONS: options})


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of its groups (frozen dataclasses) in place of the groups themselves."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint):
            groups[parameter.name] = hint
            types = get_type_hints(hint, include_extras=True)
            for each in options_in(hint):
                named = options_of(each, types[each.name])
                parameters += [option(name, *about) for name, about in named.items()]
        else:
            parameters.append(option(parameter.name, hint, parameter.default))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        grouped = {
            name: group(**{each.name: value_of(each, values) for each in options_in(group)})
            for name, group in groups.items()
        }
        command(**grouped, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect.signature reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def options_in(group: Any) -> list[Field[Any]]:
    """The fields of a group that are options; one with init=False is fixed, and is none."""
    return [each for each in fields(group) if each.init]


def option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def options_of(group_field: Field[Any], hint: Any) -> dict[str, tuple[Any, Any]]:
    """Annotation and default of the options that a field holds, by name."""
    if OPTIONS in group_field.metadata:
        return {name: (annotation, None) for name, annotation in group_field.metadata[OPTIONS].items()}
    return {group_field.name: (hint, group_field.default)}


def value_of(group_field: Field[Any], given: dict[str, Any]) -> Any:
    """The field's value out of those of all options, which are taken away from them."""
    if OPTIONS not in group_field.metadata:
        return given.pop(group_field.name)
    values = {name: given.pop(name) for name in group_field.metadata[OPTIONS]}
    return {name: value for name, value in values.items() if value is not None}

"""What is wrong with arguments, in one line."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

import typer

from tokenglass.cli.options.command import option_names
from tokenglass.model.errors import did_you_mean


def usage_message(error: typer.TyperException, arguments: list[str], read_on: str = "see {} --help") -> str:
    """What is wrong with the arguments, and what was meant or where to read on ({} is the command)."""
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".").replace("Value error, ", "")  # pydantic's, in Typer's messages
    if context is None:
        return message
    unknown = getattr(error, "option_name", "") if type(error).__name__ == "NoSuchOption" else ""
    if unknown.startswith("--"):
        if meant := did_you_mean(unknown, option_names(context.command, context)):
            return f"no option {unknown}{meant}"
        message = f"no option {unknown}"
    elif unknown:  # a single dash: only its first letter was looked for
        message = f"no option {next(argument for argument in arguments if argument.startswith(unknown))}"
    hint = dash_hint(context.command, bool(unknown), arguments)
    return f"{message}{hint}; {read_on.format(context.command_path)}"


def dash_hint(command: Any, is_unknown: bool, arguments: list[str]) -> str:
    """What to do where a text may have been taken for an option: it is unknown, or looks like a text."""
    words = [*takewhile(lambda argument: argument != "--", arguments)]
    is_text = any(re.match(r"-(?:[^-\s]*\s|--)", argument) for argument in words)
    takes_text = any(parameter.name in ("prompt", "text") for parameter in command.params)
    return "; a text that begins with a dash goes behind --" if takes_text and (is_text or is_unknown) else ""

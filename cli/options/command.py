"""Commands and groups of this program: help without noise, aliases, and suggestions for what is not known."""

from __future__ import annotations

import inspect
from typing import Any

from typer.core import TyperGroup

from tokenglass.cli.options.aliases import ALIASES, APART
from tokenglass.cli.options.common import PANEL as OTHER
from tokenglass.cli.options.idle import idle_option
from tokenglass.cli.options.plain_values import PlainCommand, read_plain_values
from tokenglass.model.errors import did_you_mean

VALUES = {"bool": "", "int range": "N", "int": "N", "float range": "X", "float": "X", "str": "TEXT"}
OF_TYPER = ("help", "install_completion", "show_completion")


class Command(PlainCommand):
    """A command whose options have aliases."""

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        options: Any = self.get_params(ctx)
        for option in options:
            aliases = [alias for name in option.opts for alias in ALIASES.get(name, ())]
            if aliases:
                parser.add_option(option, opts=aliases, dest=option.name, nargs=option.nargs)
        for name in APART:
            if name in parser._short_opt:
                parser._long_opt[name] = parser._short_opt.pop(name)  # a long one never has its value attached
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if "mode" in ctx.params and not ctx.resilient_parsing:
            names = {name for name in ctx.params if ctx.get_parameter_source(name).name == "COMMANDLINE"}
            if idle := idle_option(names, ctx.params):
                name, need = idle
                flag = next(max(option.opts, key=len) for option in self.params if option.name == name)
                ctx.fail(f"{flag} has no effect here; it needs {need}")
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        tidy(self, ctx)
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """A command that has commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        read_plain_values(self, ctx)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if not (ctx.resilient_parsing or name.startswith("-") or name in self.commands):
            meant = did_you_mean(name, [*self.commands])
            text = f'; to continue a text: {ctx.command_path} generate "..."' if "generate" in self.commands else ""
            ctx.fail(f"no command {name!r}{meant or text}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        tidy(self, ctx)
        super().format_help(ctx, formatter)


def tidy(command: Any, context: Any) -> None:
    """Prepare help: paragraphs flow, flags have no type, numbers are N or X, Typer's own options come last.

    A default that is described stands as it is, where Typer would put it in parentheses.
    """
    command.help = flowing(command.help or "")
    for parameter in command.get_params(context):
        shown = (parameter.display_type_rich(context) or "").strip()
        if shown.startswith("<list["):
            shown = ""
        elif shown.startswith("<"):
            shown = VALUES.get(shown[1:-1], shown[1:-1])
        parameter.display_type_rich = lambda ctx, shown=shown: shown  # noqa: ARG005  (Typer's name)
        if isinstance(parameter.show_default, str):
            parameter.help = rf"{parameter.help} \[default: {parameter.show_default}]"
            parameter.show_default = False
        if parameter.name in OF_TYPER:
            parameter.rich_help_panel = OTHER


def flowing(text: str) -> str:
    """The text with its paragraphs on one line each; one that has indented lines stays as it is."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(part if "\n " in part else part.replace("\n", " ") for part in paragraphs)


def option_names(command: Any, context: Any) -> dict[str, str]:
    """Every name of an option, hidden ones and aliases too, with the one that help shows."""
    options = [option for option in command.get_params(context) if option.opts and option.opts[0].startswith("-")]
    names: dict[str, str] = {}
    for option in options:
        longest = max(option.opts, key=len)
        names |= {alias: longest for name in option.opts for alias in (name, *ALIASES.get(name, ()))}
    return names

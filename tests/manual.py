"""The manual page, made from the commands themselves; `python tests/pages.py` writes it to cli/tokenglass.1.

The macros are those of man(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import typer

from tokenglass.cli import exit_codes
from tokenglass.cli.app import tokenglass_app
from tokenglass.cli.options.command import tidy

EXIT_CODES = {
    exit_codes.DONE: "Done.",
    exit_codes.ERROR: "An error of a model, a file or this machine; or what check or --expect asks does not hold.",
    exit_codes.USAGE: "The arguments or the prompt are wrong, and nothing was done.",
    exit_codes.CUT_OFF: "A text ended before it fitted its constraint; it is kept.",
    exit_codes.INTERRUPTED: "Ctrl-C: the first stops after the current step and keeps the text, the second quits.",
    exit_codes.CLOSED_PIPE: "Nobody reads stdout any more.",
    exit_codes.TERMINATED: "SIGTERM; as Ctrl-C.",
}
VARIABLES = {
    "TOKENGLASS_MODEL": "The model where -m names none.",
    "TOKENGLASS_API_KEY": "The key of a server; else OPENAI_API_KEY, over TLS or to this machine alone.",
    "TOKENGLASS_SPEED": "The pace of the live view, as --speed has it.",
    "TOKENGLASS_MARCH": "The level of processors whose kernels are used, such as x86-64-v3.",
    "XDG_CACHE_HOME": "Where models that were pulled and kernels that were compiled are kept, in a folder tokenglass.",
    "NO_COLOR, FORCE_COLOR": "Colours never, or also in a pipe.",
}


def manual() -> str:
    """The page as roff."""
    return "\n".join(lines()) + "\n"


def lines() -> Iterator[str]:
    root: Any = typer.main.get_command(tokenglass_app())
    yield f'.TH TOKENGLASS 1 "" "tokenglass {version("tokenglass")}" "User Commands"'
    yield ".SH NAME"
    yield r"tokenglass, generate \- see a language model choose every word"
    yield ".SH SYNOPSIS"
    yield r".B generate"
    yield r"[\fIOPTIONS\fR] [\fIPROMPT\fR]..."
    yield ".br"
    yield r".B tokenglass"
    yield r"\fICOMMAND\fR [\fIOPTIONS\fR]..."
    yield ".SH DESCRIPTION"
    yield escape("generate is the same as tokenglass generate. The text goes to stdout, everything else to stderr.")
    for name, command in root.commands.items():
        yield from section(name, command)
    yield from table("ENVIRONMENT", VARIABLES)
    yield from table("EXIT STATUS", {str(code): meaning for code, meaning in EXIT_CODES.items()})


def section(name: str, command: Any) -> Iterator[str]:
    """One command: what it does, and its options group by group."""
    context = command.make_context(name, [], resilient_parsing=True)
    tidy(command, context)
    yield f".SH {name.upper()}"
    for paragraph in command.help.split("\n\n"):
        if "\n " in paragraph:
            yield from (".PP", ".nf", escape(plain(paragraph)), ".fi")
        else:
            yield from (".PP", escape(plain(paragraph)))
    panel = None
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or "completion" in (parameter.name or ""):
            continue
        here = getattr(parameter, "rich_help_panel", None)
        if here != panel and here is not None:
            panel = here
            yield f".SS {escape(here)}"
        kind = parameter.display_type_rich(context)
        names = (
            ", ".join(sorted(parameter.opts, key=len)) if parameter.opts[0].startswith("-") else record[0].split()[0]
        )
        yield from (".TP", rf"\fB{escape(names)}\fR" + (rf" \fI{escape(plain(kind))}\fR" if kind else ""))
        yield escape(plain(record[1]))


def table(heading: str, entries: dict[str, str]) -> Iterator[str]:
    yield f".SH {heading}"
    for name, meaning in entries.items():
        yield from (".TP", rf"\fB{escape(name)}\fR", escape(meaning))


def plain(text: str) -> str:
    """Without the escapes of Rich's markup."""
    return re.sub(r"\\(?=\[)", "", text)


def escape(text: str) -> str:
    r"""Text as roff shows it: a backslash is \e, a dash one that can be copied, and no line begins a request."""
    escaped_text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", escaped_text)

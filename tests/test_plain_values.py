"""What a command line says is read as Typer reads it, and a start imports no validators for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.core import TyperCommand

from tokenglass.cli.commands.diff import diff
from tokenglass.cli.commands.generate import generate
from tokenglass.cli.commands.inspect import inspect
from tokenglass.cli.commands.quantize import quantize
from tokenglass.cli.commands.tokens import tokens
from tokenglass.cli.options.plain_values import PlainCommand

OPTIONS = (
    *("--max-new-tokens", "--seed", "--top-k", "--temperature", "--top-p", "--prompt-file", "--truncate", "--mode"),
    *(
        "--stop",
        "--view",
        "--dtype",
        "--system",
        "--samplers",
        "--num-samples",
        "--length-penalty",
        "--grammar",
        "--trace",
    ),
)
VALUES = (
    *("0", "1", "-1", "007", "+3", "1_000", " 4", "9" * 30, "0.5", "1e3", ".5", "1.", "nan", "inf", "-0.0", "2.0", ""),
    *(
        "text",
        "left",
        "LEFT",
        "live",
        "parallel",
        "float16",
        "\u0663",
        "\udc80",
        "-",
        "/no/such/file",
        "/",
        "a\0b",
        "true",
    ),
)


def command(kind: type[TyperCommand], callback: Any) -> Any:
    app = typer.Typer()
    app.command(cls=kind)(callback)
    return typer.main.get_command(app)


COMMANDS = {
    callback.__name__: (command(PlainCommand, callback), command(TyperCommand, callback))
    for callback in (generate, inspect, tokens, diff, quantize)
}


def read(reader: Any, arguments: list[str]) -> object:
    """The values of all parameters with their types, or the message."""
    try:
        with reader.make_context("name", list(arguments)) as context:
            return {name: (type(value), repr(value)) for name, value in context.params.items()}
    except typer.TyperException as error:
        return type(error), error.format_message()


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([*COMMANDS]),
    options=st.lists(st.tuples(st.sampled_from(OPTIONS), st.sampled_from(VALUES) | st.text(max_size=4)), max_size=3),
    prompt=st.lists(st.sampled_from(VALUES), max_size=2),
)
@example("generate", [("--temperature", "0.7"), ("--seed", "5"), ("--stop", "a"), ("--stop", "b")], ["one", "two"])
@example("generate", [("--truncate", "left"), ("--mode", "jacobi"), ("--prompt-file", "pyproject.toml")], [])
def test_values_and_messages_are_those_of_typer(name: str, options: list[tuple[str, str]], prompt: list[str]) -> None:
    arguments = [part for option in options for part in option] + ["--", *prompt]
    plain, by_typer = COMMANDS[name]
    assert read(plain, arguments) == read(by_typer, arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "5", "-t", "0.5", "--view", "plain", "--stop", "x", "Once upon a time"],
        ["--mode", "speculative", "--draft-length", "4", "a", "b"],
        ["--trace", "run.jsonl", "a"],
    ],
    ids=["numbers and choices", "a mode", "a file"],
)
def test_plain_values_import_no_validators(arguments: list[str]) -> None:
    program = (
        "import sys, typer; from tokenglass.cli.app import generate_app\n"
        f"with typer.main.get_command(generate_app()).make_context('generate', {arguments!r}): pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('pydantic')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

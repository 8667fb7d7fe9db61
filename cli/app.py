"""The Typer apps, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib
import keyword
import os
import sys
from typing import NoReturn

import typer

from tokenglass.cli.commands.generate import generate, print_version
from tokenglass.cli.exit_codes import CLOSED_PIPE, DONE, ERROR, INTERRUPTED, USAGE
from tokenglass.cli.options import Version
from tokenglass.cli.options.aliases import with_dashes
from tokenglass.cli.options.command import Command, Group
from tokenglass.cli.options.usage import usage_message
from tokenglass.cli.say import LONGEST, cut, guard_streams, say, say_lines, write
from tokenglass.model.errors import ParameterError, PromptError, TokenglassError, is_out_of_memory

COMMANDS = {
    "Write": ("generate", "chat", "pick"),
    "Look inside": ("flow", "score", "choose", "diff", "replay", "export", "import-trace", "tokens", "inspect"),
    "Measure": ("compare", "bench", "check"),
    "Models": ("pull", "quantize", "import", "models"),
}
HELP = {"help_option_names": ["-h", "--help"], "token_normalize_func": with_dashes}


def tokenglass_app(name: str = "") -> typer.Typer:
    """`tokenglass COMMAND`: all commands, or the one of that name alone, where there is one."""
    app = typer.Typer(cls=Group, context_settings=HELP, rich_markup_mode="rich", invoke_without_command=True)
    app.callback()(about)
    panels = {command: panel for panel, commands in COMMANDS.items() for command in commands}
    for command in (name,) if name in panels else panels:
        add_command(app, command, panels[command])
    return app


def add_command(app: typer.Typer, name: str, panel: str) -> None:
    """Add `tokenglass NAME`, which the module of that name in cli/commands defines: nobody else needs it."""
    if name == "models":
        from tokenglass.cli.commands.models import models_app

        app.add_typer(models_app(), name=name, rich_help_panel=panel)
        return
    function = f"{name}_" if keyword.iskeyword(name) else name.replace("-", "_")
    module = importlib.import_module(f"tokenglass.cli.commands.{function}")
    app.command(name, cls=Command, rich_help_panel=panel)(getattr(module, function))


def about(context: typer.Context, version: Version = False) -> None:
    """See a language model choose every word."""
    if version:
        print_version()
    elif context.invoked_subcommand is None:
        write(context.get_help())
        raise typer.Exit(USAGE)


def generate_app() -> typer.Typer:
    """`generate`, the same as `tokenglass generate`; the other commands are not even imported."""
    app = typer.Typer(context_settings=HELP, rich_markup_mode="rich")
    app.command(cls=Command)(generate)
    return app


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run an app on this process's arguments and leave with its exit code."""
    guard_streams()
    debug = "--debug" in sys.argv[1:]
    try:
        code = app(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as exit_:  # Typer leaves with 1 where a pipe closed; a shell expects 141
        code = CLOSED_PIPE if isinstance(exit_.__context__, BrokenPipeError) else exit_.code
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        if debug:
            import traceback

            say_lines("".join(cut(part, 4000) for part in traceback.format_exception(error)).rstrip())
        code, message = explain(error)
        if message:
            say(f"{name}: {message}")
    leave(code if isinstance(code, int) else DONE)


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the one line for an error; an empty line says nothing."""
    code, message = ERROR, f"internal error: {type(error).__name__}: {error}; --debug shows where"
    match error:
        case BrokenPipeError():
            code, message = CLOSED_PIPE, ""
        case typer.TyperException():
            code, message = USAGE, usage_message(error, sys.argv[1:])
        case typer.Abort():
            code, message = INTERRUPTED, ""
        case PromptError() | ParameterError():
            code, message = USAGE, str(error)
        case TokenglassError():
            message = str(error)
        case _ if is_out_of_memory(error):
            message = "not enough memory for this model and context; try a smaller one, or --quantize int8"
        case UnicodeEncodeError():  # arguments and names of files hold what is not UTF-8 as halves of surrogate pairs
            code, message = USAGE, f"an argument or a name is not valid UTF-8: {cut(error.object, 80)!a}"
        case OSError(errno=errno.EBADF):
            message = "stdout is closed; there is nowhere to write to"
        case OSError():
            about = f"{error.filename}: " if error.filename else "stdout: " if error.errno == errno.ENOSPC else ""
            message = f"{about}{error.strerror or error}"
    return code, " ".join(cut(message, 4 * LONGEST).split())


def leave(code: int) -> NoReturn:
    """Exit; what a closed pipe no longer takes is dropped without a word.

    Exit functions are run, but modules are not taken apart one by one: that is a sixth of a short run's time.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)

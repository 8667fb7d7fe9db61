"""From the options of a command to the constraint that the text has to fit."""

from __future__ import annotations

from pathlib import Path

from tokenglass.cli.options.control import ControlOptions
from tokenglass.model.errors import ParameterError
from tokenglass.model.files import MIB, open_regular
from tokenglass.model.sampling.constraints import Constraint

MOST = 16 * MIB  # bytes of a schema or a grammar


def read_constraint(control: ControlOptions) -> Constraint | None:
    """The one that was asked for, or None. Raises ParameterError for two of them or a file that cannot be read."""
    kinds = {
        "--regex": control.regex is not None,
        "--json-schema": control.json_schema is not None,
        "--json": control.any_json,
        "--choice": bool(control.choice),
        "--grammar": control.grammar is not None,
    }
    options = [option for option, is_given in kinds.items() if is_given]
    if len(options) > 1:
        raise ParameterError(f"{' and '.join(options)} exclude each other; a text can have one constraint")
    if control.regex is not None:
        return Constraint("regex", (control.regex,))
    if control.json_schema is not None:
        return Constraint("json-schema", (read_schema(control.json_schema),))
    if control.choice:
        return Constraint("choice", tuple(control.choice))
    if control.grammar is not None:
        return Constraint("grammar", (read(control.grammar, "--grammar"),))
    return Constraint("json") if control.any_json else None


def read_schema(argument: str) -> str:
    """A schema is a JSON object (or true or false, which no path is likely to be); everything else names a file."""
    is_text = argument.lstrip().startswith("{") or argument.strip() in ("true", "false")
    return argument if is_text else read(Path(argument), "--json-schema")


def read(path: Path, option: str) -> str:
    """A file's text. Raises ParameterError."""
    try:
        with open_regular(path) as opened:
            content = opened.read(MOST + 1)
        if len(content) > MOST:
            raise ParameterError(f"{option} {path}: is larger than {MOST // MIB} MiB")
        return content.decode("utf-8-sig")  # a byte order mark is no text
    except UnicodeDecodeError:
        raise ParameterError(f"{option} {path}: is not UTF-8 text") from None
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise ParameterError(f"{option} {path}: {reason.lower()}; expected a file that can be read") from None

"""Render one chat template, in a process of its own: JSON on stdin, text on stdout.

A template is a program that came with a checkpoint. It runs in jinja2's immutable sandbox, and this process has limits
of processor time and memory that its parent could not give itself.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 5
MEMORY_BYTES = 512 * 2**20


def main() -> None:
    limit_this_process()
    job = json.load(sys.stdin)
    try:
        sys.stdout.write(render(**job))
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except MemoryError:
        sys.exit("it needs too much memory")


def limit_this_process() -> None:
    with contextlib.suppress(ImportError):  # not on Windows, where the parent's timeout alone remains
        import resource  # noqa: PLC0415  (POSIX only)

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def render(template: str, messages: list[dict[str, Any]], variables: dict[str, Any]) -> str:
    """The text of a conversation, as transformers' apply_chat_template makes it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: dt.datetime.now().strftime(form)
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True, **variables)


def to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def refuse(message: str) -> NoReturn:
    raise TemplateError(message)


if __name__ == "__main__":
    main()

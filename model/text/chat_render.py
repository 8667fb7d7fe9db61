"""Render chat templates, in a process of its own: one JSON job a line on stdin, one JSON answer a line on stdout.

A template is a program that came with a checkpoint. It runs in jinja2's immutable sandbox, and this process has limits
of processor time and memory that its parent could not give itself. What a template may use, and how messages are
prepared for it, is what transformers' apply_chat_template gives (huggingface.co/docs/transformers, "Writing a chat
template").
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

CPU_SECONDS = 5  # of one rendering
MEMORY_BYTES = 512 * 2**20
MAX_TEXT = 16 * 2**20  # characters that a template may make
REASONING = ("reasoning_content", "thinking", "reasoning")  # names that a message's reasoning goes by


def main() -> None:
    """Answer until stdin ends. The streams carry bytes, whatever the locale says."""
    limit_memory()
    for line in sys.stdin.buffer:
        limit_time()
        sys.stdout.buffer.write(json.dumps(answer(json.loads(line))).encode("ascii") + b"\n")
        sys.stdout.buffer.flush()


def answer(job: dict[str, Any]) -> dict[str, str]:
    """The text of a conversation, or the reason why there is none."""
    try:
        text = render(**job)
        text.encode("utf-8")
    except MemoryError:
        return {"error": "it needs too much memory"}
    except UnicodeEncodeError:
        return {"error": "it makes half a surrogate pair, which is no text"}
    except Exception as error:  # a template may raise anything
        return {"error": f"{type(error).__name__}: {error}"[:2000]}
    if len(text) > MAX_TEXT:
        return {"error": f"it makes {len(text):,} characters, more than {MAX_TEXT:,}"}
    return {"text": text}


def limit_memory() -> None:
    with contextlib.suppress(ImportError):  # not on Windows, where the parent's patience alone remains
        import resource  # noqa: PLC0415  (POSIX only)

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a process that is killed for its time leaves no file


def limit_time() -> None:
    """CPU_SECONDS from now on; a process that takes more is killed."""
    with contextlib.suppress(ImportError):
        import resource  # noqa: PLC0415  (POSIX only)

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        end = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (end if hard == resource.RLIM_INFINITY else min(end, hard), hard))


def render(template: str, messages: list[dict[str, Any]], variables: dict[str, Any]) -> str:
    """The text of a conversation up to where the assistant answers, as apply_chat_template makes it."""
    names = {"tools": None, "documents": None, "add_generation_prompt": True, **variables}
    return compile_template(template).render({**names, "messages": [prepare(message) for message in messages]})


def prepare(message: dict[str, Any]) -> dict[str, Any]:
    """A message without its empty keys, its reasoning under each name that templates read."""
    message = {key: value for key, value in message.items() if value is not None}
    reasoning = next((message[key] for key in REASONING if key in message), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


@lru_cache(maxsize=4)
def compile_template(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: dt.datetime.now().strftime(form),
        "dict": PlainDict(),
        "namespace": PublicNamespace,
    }
    return environment.from_string(template)


class GenerationTag(Extension):
    """{% generation %}: what an assistant wrote. Training makes a mask of it; here it is its contents."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("contents"), [], [], body).set_lineno(line)

    def contents(self, caller: Macro) -> str:
        return str(caller())


class PlainDict:
    """`dict` without the attributes of a class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class PublicNamespace(Namespace):
    """`namespace` that takes no attribute whose name begins with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # as jinja2's, so that an attribute may be called self
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            refuse_private(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        refuse_private(name)
        super().__setitem__(name, value)


def refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no attribute that begins with an underscore, such as {name!r}")


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: jinja2's own filter escapes it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: str) -> NoReturn:
    raise TemplateError(message)


if __name__ == "__main__":
    main()

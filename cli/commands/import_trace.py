"""import-trace: the response of another program's server as a trace."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tokenglass.cli.options.common import Debug
from tokenglass.cli.say import json_bytes
from tokenglass.model.errors import ParameterError, TraceError
from tokenglass.model.files import expand_home, read_bytes

MOST = 2**28  # bytes of a file of responses

ResponseFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A saved response, a list of them, or the lines of a stream; - is stdin.")
]


def import_trace(file: ResponseFile, debug: Debug = False) -> None:
    """Turn responses with log-probabilities into a trace on stdout, for replay and export.

    Of OpenAI's completions and chats, vLLM, llama.cpp's server and Ollama. What they do not report stays open.

    `tokenglass import-trace response.json > run.jsonl`
    """
    from tokenglass.model.importers.response_trace import runs_of
    from tokenglass.model.importers.responses import read_responses
    from tokenglass.model.runs.trace import to_line

    try:
        for record in runs_of(read_responses(content_of(file))):
            sys.stdout.buffer.write(json_bytes(to_line(record), terminal=sys.stdout.isatty()) + b"\n")
    except TraceError as error:
        raise TraceError(f"{file}: {error}") from None
    sys.stdout.buffer.flush()


def content_of(file: str) -> bytes:
    """Raises ParameterError, TraceError."""
    if file != "-":
        return read_bytes(expand_home(file), MOST, TraceError, needed_by="")
    if sys.stdin is None or sys.stdin.isatty():
        raise ParameterError("- is stdin, and nothing is piped into it; name a file")
    content = sys.stdin.buffer.read(MOST + 1)
    if len(content) > MOST:
        raise TraceError(f"larger than {MOST:,} bytes, refused")
    return content

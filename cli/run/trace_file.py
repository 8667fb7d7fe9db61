"""The trace that a command names, opened."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tokenglass.model.errors import ParameterError

if TYPE_CHECKING:
    from tokenglass.model.runs.trace_reader import TraceReader


def open_file(file: str) -> TraceReader:
    """A path, or - for stdin. Raises ParameterError, TraceError."""
    from tokenglass.model.files import expand_home
    from tokenglass.model.runs.trace_reader import TraceReader, open_trace

    if file != "-":
        return open_trace(expand_home(file))
    if sys.stdin is None or sys.stdin.isatty():
        raise ParameterError("- is stdin, and nothing is piped into it; name a file")
    return TraceReader(sys.stdin.buffer, is_file=False)

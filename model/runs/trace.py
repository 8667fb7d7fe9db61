"""A run as JSON lines: its description, then one line per record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import TraceError
from tokenglass.model.records.codec import from_dict
from tokenglass.model.records.encoder import to_text
from tokenglass.model.records.steps import Finish, Step
from tokenglass.model.runs.run import SCHEMA_VERSION, Run

KINDS: dict[str, type[Run] | type[Step] | type[Finish]] = {"run": Run, "step": Step, "finish": Finish}


def to_line(record: Run | Step | Finish) -> str:
    """One JSON object on one line, `record` naming its kind."""
    kind = type(record).__name__.lower()
    return f'{{"record":"{kind}",{to_text(record)[1:]}'


def from_line(line: str) -> Run | Step | Finish:
    """The record of one line. Raises TraceError."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"trace: not a JSON line ({error})") from None
    kind = content.get("record") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise TraceError(f"trace: unknown record {quote(kind)}; expected {', '.join(KINDS)}")
    if kind == "run" and content.get("version") != SCHEMA_VERSION:
        raise TraceError(
            f"trace: version {quote(content.get('version'))} is unknown; this program reads version {SCHEMA_VERSION}"
        )
    record: Run | Step | Finish = from_dict(KINDS[kind], content)
    return record


def read(lines: Iterable[str]) -> Iterator[Run | Step | Finish]:
    """The records of a whole trace. Raises TraceError with the line's number."""
    for number, line in enumerate(lines, start=1):
        try:
            yield from_line(line)
        except TraceError as error:
            raise TraceError(f"line {number}: {error}") from None

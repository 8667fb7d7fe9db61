"""export: a kept run as a page to show to others."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tokenglass.cli.commands.replay import TraceFile, open_file
from tokenglass.cli.options.common import Debug
from tokenglass.cli.say import say
from tokenglass.model.errors import ParameterError

Html = Annotated[bool, typer.Option("--html", help="One page of HTML on stdout, which fetches nothing.")]


def export(file: TraceFile, html: Html = False, debug: Debug = False) -> None:
    """Write a kept run as a page on stdout: its text coloured, the candidates of every token, plots, a slider.

    `tokenglass export run.jsonl --html > run.html`
    """
    if not html:
        raise ParameterError("name what to export to: --html")
    from tokenglass.cli.export.page import page
    from tokenglass.model.runs.playback import split_runs

    with open_file(file) as trace:
        content = page(split_runs(trace))
        if trace.note:
            say(f"note: {trace.note}")
    sys.stdout.buffer.write(content.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()

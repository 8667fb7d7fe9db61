"""Options about the files that keep a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tokenglass.cli.options.view import PANEL

TraceFile = Annotated[str, typer.Argument(metavar="FILE", help="A trace, also compressed; - is stdin.")]
Trace = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="Keep the run in a new file, as JSON lines; compressed if it ends in .gz. No file is overwritten.",
        rich_help_panel=PANEL,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Keep the run as a new page for a browser, which fetches nothing.",
        rich_help_panel=PANEL,
    ),
]
TraceTop = Annotated[
    int, typer.Option("--trace-top", min=0, max=1000, help="Candidates that are kept per step.", rich_help_panel=PANEL)
]


@dataclass(frozen=True, slots=True)
class TraceOptions:
    trace: Trace = None
    html: Html = None
    trace_top: TraceTop = 20

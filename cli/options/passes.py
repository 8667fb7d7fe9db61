"""Options about the forward passes that write a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from tokenglass.cli.options.model import PANEL

NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Recompute every position at every step.", rich_help_panel=PANEL)
]
PrefillChunk = Annotated[
    int, typer.Option("--prefill-chunk", min=1, help="Prompt positions per pass.", rich_help_panel=PANEL)
]


@dataclass(frozen=True, slots=True)
class PassOptions:
    no_cache: NoCache = False
    prefill_chunk: PrefillChunk = 256

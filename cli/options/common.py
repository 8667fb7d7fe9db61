"""Options of every command."""

from __future__ import annotations

from typing import Annotated

import typer

PANEL = "Other"

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=PANEL)]
Version = Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, rich_help_panel=PANEL)]

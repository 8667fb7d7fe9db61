"""Options about the cache as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tokenglass.cli.options.model import PANEL

SaveCache = Annotated[
    Path | None,
    typer.Option(
        "--save-cache",
        metavar="FILE",
        help="Keep the cache in a new file, for runs that begin with the same text.",
        rich_help_panel=PANEL,
    ),
]
LoadCache = Annotated[
    Path | None,
    typer.Option(
        "--load-cache",
        metavar="FILE",
        help="Go on from a saved cache as far as its text is the prompt's; it may be saved to the same file again.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, slots=True)
class CacheOptions:
    save_cache: SaveCache = None
    load_cache: LoadCache = None

"""Options about what other settings would have drawn in a kept run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tokenglass.cli.options.groups import several
from tokenglass.cli.options.model import Dtype, Quantize
from tokenglass.cli.options.sampling import annotation_of
from tokenglass.model.sampling.parameters import SETTINGS
from tokenglass.model.sampling.rescaling import Temperature
from tokenglass.model.sampling.truncation import XTC, MinP, TopK, TopP

PANEL = "Ask a model"
NAMES = [setting.name for kind in (Temperature, TopK, TopP, MinP, XTC) for setting in kind.settings()]

Continue = Annotated[
    bool,
    typer.Option(
        "--continue", help="Write the text that other settings give, with the model that is run.", rich_help_panel=PANEL
    ),
]


Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        help="The model of --continue.",
        show_default="the one that was run",
        rich_help_panel=PANEL,
    ),
]

Rescore = Annotated[
    str | None,
    typer.Option(
        "--rescore", metavar="MODEL", help="Compare with what this model makes of the tokens.", rich_help_panel=PANEL
    ),
]
RescoreDtype = Annotated[Dtype, typer.Option("--dtype", help="Of the model of --rescore.", rich_help_panel=PANEL)]
RescoreQuantize = Annotated[
    Quantize, typer.Option("--quantize", help="Of the model of --rescore.", rich_help_panel=PANEL)
]


@dataclass(frozen=True, slots=True)
class WhatIfOptions:
    """`settings` are those that were given."""

    settings: dict[str, Any] = several(  # noqa: RUF009  (a field)
        {name: annotation_of(SETTINGS[name], "as recorded") for name in NAMES}
    )
    continues: Continue = False
    model: Model = None
    rescore: Rescore = None
    dtype: RescoreDtype = Dtype.auto
    quantize: RescoreQuantize = Quantize.none

"""Options about what other settings would have drawn in a kept run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tokenglass.cli.options.groups import several
from tokenglass.cli.options.model import Dtype, Quantize
from tokenglass.cli.options.sampling import annotation_of, option
from tokenglass.model.sampling.parameters import SETTINGS, SamplingParameters
from tokenglass.model.sampling.rescaling import Temperature
from tokenglass.model.sampling.settings import MOST, Number, Setting
from tokenglass.model.sampling.truncation import XTC, MinP, TopK, TopP

PANEL = "Ask a model"
FIXED = [setting.name for kind in (Temperature, TopK, TopP, MinP) for setting in kind.settings()]
"""What makes the final distribution of the raw one alone: no draw and no earlier token comes in."""
NAMES = [*FIXED, *(setting.name for setting in XTC.settings())]
AGAINST = "against_"

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


def against_of(setting: Setting) -> Any:
    """The option of a setting for the second of two."""
    assert isinstance(setting, Number)
    shown, most = "as the first", setting.most if setting.most < MOST else None
    flag = f"--{AGAINST.replace('_', '-')}{setting.flags[-1].lstrip('-')}"
    info = option(flag, min=setting.least, max=most, help="Of the second.", show_default=shown)
    return Annotated[type(setting.default) | None, info]


@dataclass(frozen=True, slots=True)
class TwoSettings:
    """Settings of the samplers for the first of two distributions, and for the second what is another there."""

    first: dict[str, Any] = several(  # noqa: RUF009  (a field)
        {name: annotation_of(SETTINGS[name], "off") for name in FIXED}
    )
    second: dict[str, Any] = several(  # noqa: RUF009  (a field)
        {f"{AGAINST}{name}": against_of(SETTINGS[name]) for name in FIXED}
    )

    @property
    def are_given(self) -> bool:
        return bool(self.first or self.second)

    @property
    def both(self) -> tuple[SamplingParameters, SamplingParameters]:
        """What is not given is off, and temperature 1. Raises ParameterError."""
        first = SamplingParameters(**{**{name: SETTINGS[name].off for name in FIXED}, "temperature": 1.0, **self.first})
        return first, first.replace(**{name.removeprefix(AGAINST): value for name, value in self.second.items()})


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

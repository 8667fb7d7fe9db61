"""Options about what is shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

PANEL = "What is shown"


class ViewName(StrEnum):
    auto = "auto"
    live = "live"
    plain = "plain"
    jsonl = "jsonl"


class ColorWhen(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


class PanelSize(StrEnum):
    full = "full"
    slim = "slim"
    off = "off"


class ColorBy(StrEnum):
    none = "none"
    probability = "probability"
    entropy = "entropy"


View = Annotated[
    ViewName, typer.Option("--view", help="auto is live on a terminal, else plain.", rich_help_panel=PANEL)
]
Jsonl = Annotated[bool, typer.Option("--jsonl", help="The same as --view jsonl.", rich_help_panel=PANEL)]
Candidates = Annotated[
    int | None,
    typer.Option(
        "--candidates",
        min=0,
        max=1000,
        help="Candidates shown per step.",
        show_default="5",
        rich_help_panel=PANEL,
    ),
]
Panel = Annotated[PanelSize, typer.Option("--panel", help="Size of the live panel.", rich_help_panel=PANEL)]
ColorByOption = Annotated[
    ColorBy, typer.Option("--color-by", help="Colour the live text by this.", rich_help_panel=PANEL)
]
Speed = Annotated[
    str | None,
    typer.Option(
        "--speed",
        metavar="N",
        envvar="TOKENGLASS_SPEED",
        help="Show N tokens a second on a terminal, or max; by default about 12 at first, then faster and faster.",
        rich_help_panel=PANEL,
    ),
]
Pause = Annotated[bool, typer.Option("--pause", help="One step per key press, like --speed 0.", rich_help_panel=PANEL)]
Flow = Annotated[
    bool,
    typer.Option(
        "--flow", help="Show what each earlier token did to the choice; see `tokenglass flow`.", rich_help_panel=PANEL
    ),
]
Experts = Annotated[
    bool,
    typer.Option(
        "--experts",
        help="Show which experts of a mixture each token took, with the routers' probabilities.",
        rich_help_panel=PANEL,
    ),
]
Stages = Annotated[
    bool,
    typer.Option(
        "--stages",
        help="Unfold each choice: its distribution after each sampler, and at other temperatures.",
        rich_help_panel=PANEL,
    ),
]
Stats = Annotated[
    bool, typer.Option("--stats", help="Print a summary on stderr, also in pipes.", rich_help_panel=PANEL)
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="On stderr, nothing but errors and what is asked for.", rich_help_panel=PANEL),
]
Color = Annotated[ColorWhen, typer.Option("--color", help="When to use colour.", rich_help_panel=PANEL)]


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """auto: what suits the terminal or the pipe."""

    view: View = ViewName.auto
    jsonl: Jsonl = False
    candidates: Candidates = None
    panel: Panel = PanelSize.full
    color_by: ColorByOption = ColorBy.none
    speed: Speed = None
    pause: Pause = False
    flow: Flow = False
    experts: Experts = False
    stages: Stages = False
    stats: Stats = False
    quiet: Quiet = False
    color: Color = ColorWhen.auto

    @property
    def top(self) -> int:
        """How many candidates of a step are shown."""
        return 5 if self.candidates is None else self.candidates

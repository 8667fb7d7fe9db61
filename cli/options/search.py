"""Options about several texts at once, and about the way of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

PANEL = "Search"

option = partial(typer.Option, rich_help_panel=PANEL)

NumSamples = Annotated[
    int,
    option(
        "--num-samples",
        min=1,
        help="Write this many texts from one prefill, or the best so many beams.",
    ),
]
Separator = Annotated[
    str | None,
    option("--separator", metavar="TEXT", help="What a pipe gets between two texts.", show_default="a newline"),
]
Null = Annotated[bool, option("-0", "--null", help="A pipe gets a null byte after each text, as xargs -0 wants it.")]
Beams = Annotated[int, option("--beams", min=1, help="Keep the n most probable texts at each step (greedy search).")]
LengthPenalty = Annotated[
    float, option("--length-penalty", help="A beam's sum of logprobs is divided by its length to this power.")
]
EarlyStopping = Annotated[bool, option("--early-stopping", help="End with as many finished beams as --beams.")]
Negative = Annotated[
    str | None, option("--negative", metavar="TEXT", help="Guide away from this prompt (with --guidance).")
]
Guidance = Annotated[float, option("--guidance", min=1, help="How far from the negative prompt; 1 is off.")]

Forks = Annotated[
    int,
    option(
        "--forks",
        metavar="K",
        min=0,
        max=100,
        help="List at the end the K near-ties that would have changed most, and how the text would have gone on.",
    ),
]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """One text, unless more are asked for."""

    num_samples: NumSamples = 1
    separator: Separator = None
    null: Null = False
    beams: Beams = 1
    length_penalty: LengthPenalty = 1.0
    early_stopping: EarlyStopping = False
    negative: Negative = None
    guidance: Guidance = 1.0
    forks: Forks = 0

    @property
    def is_several(self) -> bool:
        """Whether more than one text is decoded."""
        return self.num_samples > 1 or self.beams > 1

    @property
    def between(self) -> str:
        """What stands between two texts."""
        return "\0" if self.null else "\n" if self.separator is None else self.separator

    @property
    def behind(self) -> str:
        """What stands behind the last one."""
        return "\0" if self.null else ""

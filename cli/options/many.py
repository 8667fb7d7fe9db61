"""Options about many prompts at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

PANEL = "Many prompts"

option = partial(typer.Option, rich_help_panel=PANEL)

EachLine = Annotated[
    bool,
    option(
        "--each-line",
        help="Each line of stdin is a prompt, and is answered by a line of JSON; --candidates N adds its tokens, with "
        "the N most probable beside each.",
    ),
]
Prompts = Annotated[
    Path | None,
    option(
        "--prompts",
        metavar="FILE",
        help='The same for each line of a JSON lines file, or of - (stdin): {"id", "prompt" or "messages"}, '
        "and options of its own by their names, such as max_new_tokens.",
    ),
]
NumSlots = Annotated[
    int | None,
    option(
        "--slots",
        min=1,
        max=1024,
        help="Prompts in work at once.",
        show_default="32, or what fits in memory; those of a server",
    ),
]
Unordered = Annotated[bool, option("--unordered", help="Write each answer when it is there, in any order.")]
Output = Annotated[
    Path | None,
    option(
        "--output",
        metavar="FILE",
        help="Write the answers to this file. The same command goes on with it where it was stopped or killed.",
    ),
]
FailFast = Annotated[bool, option("--fail-fast", help="Begin no more prompts behind one that cannot be answered.")]


@dataclass(frozen=True, slots=True)
class ManyOptions:
    """One prompt, unless one of the first two is given."""

    each_line: EachLine = False
    prompts: Prompts = None
    slots: NumSlots = None
    unordered: Unordered = False
    output: Output = None
    fail_fast: FailFast = False

    @property
    def is_on(self) -> bool:
        return self.each_line or self.prompts is not None

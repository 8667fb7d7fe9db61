"""Options about where the text ends, and what it may and must say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import typer

PANEL = "Control"

option = partial(typer.Option, rich_help_panel=PANEL)

MaxNewTokens = Annotated[
    int | None,
    option(
        "-n",
        "--max-new-tokens",
        min=1,
        help="Stop after this many new tokens.",
        show_default="256; in chat 512",
    ),
]
MinNewTokens = Annotated[
    int | None, option("--min-new-tokens", min=0, help="No end token before this many new tokens.")
]
IgnoreEos = Annotated[bool, option("--ignore-eos", help="Never draw an end token.")]
MaxTime = Annotated[
    float | None, option("--max-time", min=0, metavar="SECONDS", help="Stop after this long, the prompt included.")
]
Stop = Annotated[
    list[str] | None,
    option("--stop", metavar="TEXT", help="End before this text, or at the special token of this name (repeatable)."),
]
Ban = Annotated[
    list[str] | None,
    option(
        "--ban",
        metavar="TEXT",
        help="Never write this: go back to where it began, draw anew; or a special token's name (repeatable).",
    ),
]
Regex = Annotated[str | None, option("--regex", metavar="REGEX", help="The whole text matches this.")]
JsonSchema = Annotated[
    str | None,
    option("--json-schema", metavar="FILE|TEXT", help="The text is JSON that fits this schema, all on one line."),
]
AnyJson = Annotated[bool, option("--json", help="The text is JSON: an object or an array, all on one line.")]
ChoiceOption = Annotated[
    list[str] | None, option("--choice", metavar="TEXT", help="The text is one of these (repeatable).")
]
Grammar = Annotated[
    Path | None, option("--grammar", metavar="FILE", help="The text fits this grammar (Lark's syntax).")
]


@dataclass(frozen=True, slots=True)
class TextOptions:
    """None: the checkpoint's default, or off."""

    DEFAULT_LENGTH: ClassVar[int] = 256  # new tokens, where neither the options nor the checkpoint say

    max_new_tokens: MaxNewTokens = None
    min_new_tokens: MinNewTokens = None
    ignore_eos: IgnoreEos = False
    stop: Stop = None
    ban: Ban = None
    regex: Regex = None
    json_schema: JsonSchema = None
    any_json: AnyJson = False
    choice: ChoiceOption = None
    grammar: Grammar = None

    @property
    def planned_length(self) -> int:
        """New tokens to make room for, as far as the options say."""
        return self.max_new_tokens or self.DEFAULT_LENGTH


@dataclass(frozen=True, slots=True)
class ControlOptions(TextOptions):
    """Those of a text that writes itself."""

    max_time: MaxTime = None

"""Options about what is continued."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

PANEL = "Prompt"


class Side(StrEnum):
    left = "left"
    right = "right"
    middle = "middle"


Prompt = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROMPT", help="Text to continue; parts are joined by newlines, - is stdin."),
]
PromptOption = Annotated[list[str] | None, typer.Option("-p", "--prompt", hidden=True)]  # as llama.cpp has it
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompt-file", metavar="FILE", help="Read the prompt from a file.", rich_help_panel=PANEL),
]
KeepNewline = Annotated[
    bool,
    typer.Option("--keep-newline", help="Keep the last newline of stdin or of the file.", rich_help_panel=PANEL),
]
Truncate = Annotated[
    Side | None,
    typer.Option("--truncate", help="Cut a prompt that is too long, on this side.", rich_help_panel=PANEL),
]
Echo = Annotated[bool, typer.Option("--echo", help="Write the prompt before the text.", rich_help_panel=PANEL)]
Heal = Annotated[
    bool,
    typer.Option(
        "--heal", help="Choose the prompt's last token anew: the first new one begins with it.", rich_help_panel=PANEL
    ),
]
Chat = Annotated[
    bool,
    typer.Option(
        "--chat", help="Apply the chat template; stdin may be a JSON list of messages.", rich_help_panel=PANEL
    ),
]
System = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="The system message of a chat.", rich_help_panel=PANEL)
]
PrefillResponse = Annotated[
    str | None,
    typer.Option(
        "--prefill-response", metavar="TEXT", help="Let the answer of a chat begin with this.", rich_help_panel=PANEL
    ),
]


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """None: not given."""

    prompt: Prompt = None
    prompt_option: PromptOption = None
    prompt_file: PromptFile = None
    keep_newline: KeepNewline = False
    truncate: Truncate = None
    echo: Echo = False
    heal: Heal = False
    chat: Chat = False
    system: System = None
    prefill_response: PrefillResponse = None

    @property
    def parts(self) -> list[str]:
        """The prompt's parts, in whichever way they are given."""
        return [*(self.prompt or ()), *(self.prompt_option or ())]

    def display_text(self, text: str) -> str:
        """The prompt as a view shows it."""
        return f"{text}\n{self.prefill_response or ''}" if self.chat else text

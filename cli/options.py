"""One Annotated alias per option: its range, its help, its panel."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

PROMPT, CONTROL, VIEW, MODEL, OTHER = "Prompt", "Control", "What is shown", "Model", "Other"


class Dtype(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class ViewName(StrEnum):
    auto = "auto"
    live = "live"
    plain = "plain"
    jsonl = "jsonl"


class ColorWhen(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


class Side(StrEnum):
    left = "left"
    right = "right"
    middle = "middle"


class PanelSize(StrEnum):
    full = "full"
    slim = "slim"
    off = "off"


class ColorBy(StrEnum):
    none = "none"
    probability = "probability"
    entropy = "entropy"


Prompt = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PROMPT]...", help="Text to continue; parts are joined by newlines, - is stdin."),
]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompt-file", metavar="FILE", help="Read the prompt from a file.", rich_help_panel=PROMPT),
]
KeepNewline = Annotated[
    bool,
    typer.Option("--keep-newline", help="Keep the last newline of stdin or of the file.", rich_help_panel=PROMPT),
]
Truncate = Annotated[
    Side | None,
    typer.Option("--truncate", help="Cut a prompt that is too long, on this side.", rich_help_panel=PROMPT),
]
Echo = Annotated[bool, typer.Option("--echo", help="Write the prompt before the text.", rich_help_panel=PROMPT)]

Chat = Annotated[
    bool,
    typer.Option(
        "--chat", help="Apply the chat template; stdin may be a JSON list of messages.", rich_help_panel=PROMPT
    ),
]
System = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="The system message of a chat.", rich_help_panel=PROMPT)
]

MaxNewTokens = Annotated[
    int,
    typer.Option("-n", "--max-new-tokens", min=1, help="Stop after this many new tokens.", rich_help_panel=CONTROL),
]
Temperature = Annotated[
    float | None,
    typer.Option("-t", "--temperature", min=0, help="0 is greedy, higher is bolder.", rich_help_panel=CONTROL),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", min=0, help="Keep the k most probable tokens; 0 is off.", rich_help_panel=CONTROL),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        min=0,
        max=1,
        help="Keep the best tokens that hold p together; 1 is off.",
        rich_help_panel=CONTROL,
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        "--min-p", min=0, max=1, help="Keep tokens p times as probable as the best; 0 is off.", rich_help_panel=CONTROL
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=2**64 - 1,
        help="Same seed, same text; else chosen and told.",
        rich_help_panel=CONTROL,
    ),
]

View = Annotated[ViewName, typer.Option("--view", help="auto is live on a terminal, else plain.", rich_help_panel=VIEW)]
Jsonl = Annotated[bool, typer.Option("--jsonl", help="The same as --view jsonl.", rich_help_panel=VIEW)]
Top = Annotated[int, typer.Option("--top", min=0, max=1000, help="Candidates shown per step.", rich_help_panel=VIEW)]
Panel = Annotated[PanelSize, typer.Option("--panel", help="Size of the live panel.", rich_help_panel=VIEW)]
ColorByOption = Annotated[
    ColorBy, typer.Option("--color-by", help="Colour the live text by this.", rich_help_panel=VIEW)
]
Pause = Annotated[bool, typer.Option("--pause", help="One step per key press.", rich_help_panel=VIEW)]
Stats = Annotated[bool, typer.Option("--stats", help="Print a summary on stderr, also in pipes.", rich_help_panel=VIEW)]
Color = Annotated[ColorWhen, typer.Option("--color", help="When to use colour.", rich_help_panel=VIEW)]

ModelName = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        envvar="TOKENGLASS_MODEL",
        help="A folder, a GGUF file, or a name of `tokenglass models`; else tale.",
        rich_help_panel=MODEL,
    ),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option("--dtype", help="auto: float32 for tale on a CPU, else the checkpoint's.", rich_help_panel=MODEL),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="auto: cuda, mps, cpu.", rich_help_panel=MODEL)]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.", rich_help_panel=MODEL)]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Recompute every position at every step.", rich_help_panel=MODEL)
]
PrefillChunk = Annotated[
    int, typer.Option("--prefill-chunk", min=1, help="Prompt positions per pass.", rich_help_panel=MODEL)
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OTHER)]
Version = Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, rich_help_panel=OTHER)]

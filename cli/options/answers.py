"""Options of choose: which prompt, and how its answers are weighed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

PANEL = "Weighing"


class By(StrEnum):
    joint = "joint"
    mean = "mean"


Answers = Annotated[
    list[str] | None, typer.Argument(metavar="ANSWER", help="A possible continuation of the prompt; give at least two.")
]
PromptText = Annotated[
    str | None, typer.Option("-p", "--prompt", metavar="TEXT", help="The prompt; else --prompt-file, or stdin.")
]
WeighBy = Annotated[
    By,
    typer.Option(
        "--by",
        help="The best answer is that of the joint probability, or of the mean per token.",
        rich_help_panel=PANEL,
    ),
]
Rotate = Annotated[
    bool,
    typer.Option(
        "--rotate", help="Average over the orders of the answers that the prompt lists.", rich_help_panel=PANEL
    ),
]
Prior = Annotated[
    bool,
    typer.Option("--prior", help="Divide by what each answer has behind an empty prompt.", rich_help_panel=PANEL),
]
Expect = Annotated[
    str | None, typer.Option("--expect", metavar="ANSWER", help="Exit with 1 unless this answer is the best.")
]
QuestionLines = Annotated[
    bool,
    typer.Option(
        "--jsonl",
        help='Answer a JSON line each: {"id", "prompt" or "messages", "answers"}, from --prompt-file or stdin.',
    ),
]
TypedDecisions = Annotated[
    bool,
    typer.Option("--systemone", help="Answer typed decisions (choice, score, noul), as JSON at /v1/systemone."),
]

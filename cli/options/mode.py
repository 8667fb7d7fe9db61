"""Options about the way of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from tokenglass.cli.options.completion import model_names
from tokenglass.model.decoding.modes import AUTOREGRESSIVE, MODES

PANEL = "Mode"


Mode = StrEnum("Mode", [(name, name) for name in MODES])  # type: ignore[misc]  # the modes there are
DEFAULT = Mode(AUTOREGRESSIVE)


class DraftBy(StrEnum):
    ngram = "ngram"
    parallel = "parallel"
    model = "model"


option = partial(typer.Option, rich_help_panel=PANEL)

ModeOption = Annotated[
    Mode,
    option(
        "--mode",
        help=f"{'; '.join(f'{mode.name} {mode.help}' for mode in MODES.values())}.",
    ),
]
BlockSize = Annotated[int, option("--block-size", min=1, help="Positions of a parallel or jacobi block.")]
Reveal = Annotated[int | None, option("--reveal", min=1, help="Reveal this many positions in each pass.")]
Threshold = Annotated[
    float | None, option("--threshold", min=0, max=1, help="Reveal what is at least this probable (0.9).")
]
EntropyBound = Annotated[
    float | None, option("--entropy-bound", min=0, help="Reveal as long as their entropy stays below this (0.1).")
]
Passes = Annotated[int | None, option("--passes", min=1, help="Fill a block in this many passes; 1 is all at once.")]
Draft = Annotated[DraftBy, option("--draft", help="Where speculative guesses come from.")]
DraftModel = Annotated[
    str | None,
    option(
        "--draft-model",
        metavar="MODEL",
        help="A smaller model with the same tokenizer.",
        autocompletion=model_names,
    ),
]
DraftLength = Annotated[
    int, option("--draft-length", min=1, help="Most guesses to verify in one pass; fewer where guesses were wrong.")
]


@dataclass(frozen=True, slots=True)
class ModeOptions:
    """None: a rule that was not given."""

    mode: ModeOption = DEFAULT
    block_size: BlockSize = 16
    reveal: Reveal = None
    threshold: Threshold = None
    entropy_bound: EntropyBound = None
    passes: Passes = None
    draft: Draft = DraftBy.ngram
    draft_model: DraftModel = None
    draft_length: DraftLength = 8

"""score: how probable a given text is."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tokenglass.cli import options
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import ServedModelOptions
from tokenglass.cli.run.texts import read_texts
from tokenglass.cli.say import say
from tokenglass.cli.terminal.opening import opening
from tokenglass.cli.terminal.terminal import is_terminal

Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE", help="Texts to score; - is stdin, and so is no file with a text piped in."),
]
WindowSize = Annotated[
    int | None,
    typer.Option("--window", metavar="N", help="Tokens read at once of a longer text; else the model's context."),
]
Stride = Annotated[
    int | None,
    typer.Option(
        "--stride",
        metavar="N",
        help="Tokens from one window's start to the next; else half a window. Fewer is slower, and each sees more.",
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--candidates", min=0, max=1000, help="Most probable tokens beside each one in JSON; else 0, with --openai 5."
    ),
]
Worst = Annotated[int, typer.Option("--worst", min=0, max=1000, help="Most surprising tokens listed on a terminal.")]
Jsonl = Annotated[bool, typer.Option("--jsonl", help="One JSON line per token, and one per text.")]
OpenAI = Annotated[
    bool, typer.Option("--openai", help="JSON in the shape of an OpenAI completion with echo and logprobs.")
]


@flat
def score(
    files: Files = None,
    window: WindowSize = None,
    stride: Stride = None,
    top: Top = None,
    worst: Worst = 5,
    as_json: options.Json = False,
    jsonl: Jsonl = False,
    openai: OpenAI = False,
    keep_newline: options.KeepNewline = False,
    *,
    model: ServedModelOptions,
    color: options.Color = options.ColorWhen.auto,
    debug: options.Debug = False,
) -> None:
    """Show how probable a text is: bits per byte, perplexity, and the surprise of every token.

    A terminal shows one text coloured by surprise, and several as a table; a pipe gets the table, tab-separated.
    """
    from tokenglass.model.errors import ParameterError

    if as_json + jsonl + openai > 1:
        raise ParameterError("--json, --jsonl and --openai exclude each other; give one of them")
    texts = read_texts(files or [], keep_newline=keep_newline)
    with opening(texts[0][1] if len(texts) == 1 else "") as first:
        from tokenglass.cli.run.scoring import score_here, score_there
        from tokenglass.cli.views import score as views
        from tokenglass.cli.views.score_text import show_text
        from tokenglass.model.sources.server.address import is_address

        on_screen = len(texts) == 1 and not (as_json or jsonl or openai) and is_drawn(color)
        shown = (5 if openai else int(on_screen)) if top is None else top
        score_with = score_there if is_address(model.model) else score_here
        scoring = score_with(model, texts, window, stride, shown, first)
    if openai:
        views.write_openai(scoring)
    elif jsonl:
        views.write_jsonl(scoring)
    elif as_json:
        views.write_facts(scoring)
    else:
        for note in scoring.notes():
            say(f"note: {note}")
        if on_screen:
            show_text(scoring, worst, color.value)
        else:
            views.show_table(scoring, color.value)


def is_drawn(color: options.ColorWhen) -> bool:
    """Whether stdout shows colours, or somebody asks for them."""
    return is_terminal(sys.stdout) or color is options.ColorWhen.always

"""tokens: how a tokenizer cuts a text."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.table import Table

from tokenglass.cli import options
from tokenglass.cli.run.prompt import read_prompt
from tokenglass.cli.say import write_json
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.terminal.terminal import visible_piece

Text = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Text to cut; parts are joined by newlines, - is stdin."),
]


def tokens(
    text: Text = None,
    model: options.ModelName = None,
    prompt_file: options.PromptFile = None,
    keep_newline: options.KeepNewline = False,
    as_json: options.Json = False,
    color: options.Color = options.ColorWhen.auto,
    debug: options.Debug = False,
) -> None:
    """Show the token ids, pieces and bytes of a text."""
    content = read_prompt(text or [], prompt_file, keep_newline=keep_newline)
    from tokenglass.cli.run.model_folder import model_folder
    from tokenglass.model.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_folder(model_folder(model))
    pieces = [(token_id, tokenizer.piece(token_id)) for token_id in tokenizer.encode(content)]
    if as_json:
        rows = [{"token_id": i, "piece": p.decode("utf-8", "replace"), "bytes": list(p)} for i, p in pieces]
        write_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("id", justify="right")
    table.add_column("piece")
    table.add_column("bytes", style="dim")
    console = make_console(sys.stdout, color=color.value)
    for token_id, piece in pieces:
        table.add_row(str(token_id), visible_piece(piece, ascii_only=console.options.ascii_only), piece.hex(" "))
    console.print(table)

"""export: a kept run as a page, a picture, a text or a table."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from tokenglass.cli.options.common import Debug
from tokenglass.cli.options.trace import TraceFile
from tokenglass.cli.run.trace_file import open_file
from tokenglass.cli.say import say
from tokenglass.model.errors import ParameterError

if TYPE_CHECKING:
    from tokenglass.cli.export.kept_text import Runs

Html = Annotated[bool, typer.Option("--html", help="One page that fetches nothing: hover, arrow keys, plots, replay.")]
Svg = Annotated[bool, typer.Option("--svg", help="A picture: the text coloured by probability, and its last step.")]
Markdown = Annotated[bool, typer.Option("--md", help="Markdown: the text, and a table of its tokens.")]
Csv = Annotated[bool, typer.Option("--csv", help="A row for every choice, with exact numbers.")]


def export(
    file: TraceFile,
    html: Html = False,
    svg: Svg = False,
    markdown: Markdown = False,
    csv: Csv = False,
    debug: Debug = False,
) -> None:
    """Write a kept run in another format on stdout, to show it to others or to compute with it.

    `tokenglass export run.jsonl --html > run.html`
    """
    formats = {"--html": html, "--svg": svg, "--md": markdown, "--csv": csv}
    chosen = [name for name, is_chosen in formats.items() if is_chosen]
    if len(chosen) != 1:
        raise ParameterError(f"name one format to export to: {', '.join(formats)}")
    from tokenglass.model.runs.playback import split_runs

    with open_file(file) as trace:
        for part in parts_of(chosen[0], split_runs(trace)):
            sys.stdout.buffer.write(part.encode("utf-8", "replace"))
        if trace.note:
            say(f"note: {trace.note}")
    sys.stdout.buffer.flush()


def parts_of(name: str, runs: Runs) -> Iterable[str]:
    """The parts of the format that an option names."""
    if name == "--csv":
        from tokenglass.cli.export.table import table

        return table(runs)
    if name == "--md":
        from tokenglass.cli.export.markdown import markdown

        return markdown(runs)
    if name == "--svg":
        from tokenglass.cli.export.picture import picture

        return [picture(runs)]
    from tokenglass.cli.export.page import page

    return [page(runs)]

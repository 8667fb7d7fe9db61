"""A kept run as a picture: its texts coloured by probability, and of a single one the last step below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.segment import Segment, Segments

from tokenglass.cli.export.kept_text import KeptText, Runs, kept_texts
from tokenglass.cli.export.svg import drawing_console, svg_of
from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.terminal.wrapping import on_screen, wrap
from tokenglass.cli.widgets.panel import Panel, Progress
from tokenglass.cli.widgets.token_text import TRUE_COLORS, Legend, token_style
from tokenglass.cli.widgets.widget import BOLD, DIM
from tokenglass.model.records.steps import Finish, Record, Totals
from tokenglass.model.runs.run import Run

WIDTH = 88  # columns


def picture(runs: Runs) -> str:
    """SVG of every text. The same trace gives the same picture."""
    console = drawing_console(WIDTH)
    contents = [(run, list(records)) for run, records in runs]
    texts = list(kept_texts(contents))
    for text in texts:
        if len(texts) > 1:
            console.print(Segments([Segment(text.title, BOLD), Segment.line()]))
        for line in Segment.split_lines([Segment(visible(text.run.prompt), DIM), *segments_of(text)]):
            for row in wrap(line, WIDTH):
                console.print(Segments([*on_screen(row), Segment.line()]), end="")
    panel = last_panel(*contents[0]) if len(texts) == 1 else None
    console.print(Legend("probability", TRUE_COLORS) if panel is None else panel)
    return svg_of(console, title="tokenglass", unique_id="run")


def segments_of(text: KeptText) -> Iterator[Segment]:
    for token in text.tokens:
        yield Segment(visible(token.text), token_style(token.choice, "probability", TRUE_COLORS))


def last_panel(run: Run, records: Sequence[Record]) -> Panel | None:
    """The panel of the live view as it stands at the end; None where nothing was chosen."""
    progress, history = Progress(run, Totals()), list[float]()
    for record in records:
        if isinstance(record, Finish):
            progress = replace(progress, finish=record)
        else:
            progress = progress.plus(record)
            history += [record.cache.nbytes_used] if record.cache is not None else []
    if progress.choice is None:
        return None
    return Panel(replace(progress, history=history), "full", height=40, color_by="probability", ramp=TRUE_COLORS)

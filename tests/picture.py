"""The pictures in the README: a real run of the bundled model, kept as a trace and drawn from it.

    python tests/picture.py

makes the run anew (fixed prompt and seed) and writes tests/picture/run.jsonl, run.svg and, where there is Chromium, a
picture of its page, page.png.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from browser import CHROMIUM
from rich.console import Console
from rich.segment import Segment, Segments

from tokenglass.cli.export.svg import THEME
from tokenglass.cli.terminal.wrapping import on_screen, wrap
from tokenglass.cli.views.pace import due
from tokenglass.cli.widgets.panel import Panel, Progress
from tokenglass.cli.widgets.token_text import TRUE_COLORS, token_style
from tokenglass.cli.widgets.widget import DIM, glyphs_of
from tokenglass.model.records.steps import Finish, Step, Totals
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace import read

FOLDER = Path(__file__).parent / "picture"
TRACE, PICTURE = FOLDER / "run.jsonl", FOLDER / "run.svg"
PROMPT, SEED, TOKENS = "Once upon a time", "24", "48"
WIDTH = 88
LINE = 24.4  # of Rich's pictures, in pixels
HOLD = 4.0  # seconds that the last frame stays
FILM = """<svg viewBox="0 0 {{width}} {whole}" xmlns="http://www.w3.org/2000/svg" role="img"
  aria-label="A story is written one token at a time; a panel shows the candidates of each">
<style>
.{{unique_id}}-matrix {{{{ font-family: Fira Code, Menlo, Consolas, monospace; font-size: {{char_height}}px }}}}
.film {{{{ transform: {last}; animation: film {seconds}s step-end infinite }}}}
@media (prefers-reduced-motion: reduce) {{{{ .film {{{{ animation: none }}}} }}}}
@keyframes film {{{{
{keys}}}}}
{{styles}}
</style>
<defs><clipPath id="screen"><rect width="{{terminal_width}}" height="{screen}"/></clipPath></defs>
<rect fill="#181a1f" stroke="#3a3d44" x="1" y="1" width="99.8%" height="99.6%" rx="8"/>
<g transform="translate({{terminal_x}}, 22)" clip-path="url(#screen)"><g class="film">
{{backgrounds}}
<g class="{{unique_id}}-matrix">
{{matrix}}
</g></g></g>
</svg>
"""


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    TRACE.write_bytes(fresh_run())
    PICTURE.write_text(draw(TRACE.read_text().splitlines()))
    if CHROMIUM is not None:
        photograph_page(CHROMIUM)


def photograph_page(chromium: str) -> None:
    """What `tokenglass export --html` makes of the run, in a window of 1000x480."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        with page.open("wb") as out:
            subprocess.run(
                [Path(sys.executable).parent / "tokenglass", "export", TRACE, "--html"], stdout=out, check=True
            )
        options = ("--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1000,480")
        subprocess.run(
            [chromium, *options, f"--screenshot={FOLDER / 'page.png'}", page.as_uri()], capture_output=True, check=True
        )


def fresh_run() -> bytes:
    command = [Path(sys.executable).parent / "generate", PROMPT, "--seed", SEED, "-n", TOKENS, "--jsonl"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout


def draw(trace: Sequence[str]) -> str:
    """The live view's frames as one animated SVG, from a trace: one for each step, at the default pace."""
    run, *steps, finish = read(trace)
    assert isinstance(run, Run)
    assert isinstance(finish, Finish)
    command = f'$ generate "{run.prompt}" --seed {run.seed} -n {len(steps)} --color-by probability'
    frames = [[[Segment(command)], *rows] for rows in screens(run, steps, finish)]
    height = max(map(len, frames))
    console = Console(
        file=io.StringIO(),
        record=True,
        width=WIDTH,
        color_system="truecolor",
        force_terminal=True,
        legacy_windows=False,
    )
    for rows in frames:  # all of them below one another: a film
        for row in [*rows, *[[] for _ in range(height - len(rows))]]:
            console.print(Segments([*row, Segment.line()]), end="")
    starts = [abs(due(index)) for index in range(len(frames))]
    svg = console.export_svg(title="tokenglass", theme=THEME, code_format=film(height, starts), unique_id="run")
    return re.sub(r' clip-path="url\(#run-line-\d+\)"', "", svg)  # no line is wider than the screen


def screens(run: Run, steps: Sequence[object], finish: Finish) -> Iterator[list[list[Segment]]]:
    """The rows of each frame: the text so far, and the panel below it."""
    text, history = [Segment(run.prompt, DIM)], list[float]()
    progress = Progress(run, Totals(), history=history)
    glyphs = glyphs_of(Console(width=WIDTH, legacy_windows=False).options)
    for step in steps:
        assert isinstance(step, Step)
        assert step.cache is not None
        history.append(step.cache.nbytes_used)
        progress = replace(progress.plus(step), finish=finish if step is steps[-1] else None)
        if step.choices:
            text.append(Segment(step.text, token_style(step.choices[-1], "probability", TRUE_COLORS)))
        panel = Panel(replace(progress, history=history[:]), "full", height=40, color_by="probability")
        lines = [on_screen(row) for line in Segment.split_lines(text) for row in wrap(line, WIDTH)]
        yield [*lines, *panel.rows(WIDTH, glyphs)]


def film(height: int, starts: Sequence[float]) -> str:
    """A frame of SVG for Rich in which one screen of `height` lines is seen at a time, each from its second on.

    Who wants no motion sees the last one.
    """
    seconds = starts[-1] + HOLD
    places = [f"translateY({-number * height * LINE:.1f}px)" for number in range(len(starts))]
    keys = "".join(
        f"{100 * start / seconds:.2f}% {{{{ transform: {place} }}}}\n"
        for start, place in zip(starts, places, strict=True)
    )
    screen = height * LINE
    return FILM.format(
        keys=keys, seconds=f"{seconds:.2f}", last=places[-1], screen=f"{screen:.1f}", whole=f"{screen + 60:.1f}"
    )


if __name__ == "__main__":
    main()

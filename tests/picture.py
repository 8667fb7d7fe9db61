"""The picture in the README: a real run of the bundled model, kept as a trace and drawn from it.

    python tests/picture.py

makes the run anew (fixed prompt and seed) and writes tests/picture/run.jsonl and tests/picture/run.svg.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.segment import Segment, Segments
from rich.terminal_theme import TerminalTheme

from tokenglass.cli.widgets.panel import Panel, Progress
from tokenglass.cli.widgets.token_text import TRUE_COLORS, token_style
from tokenglass.cli.widgets.widget import DIM
from tokenglass.model.records.steps import Finish, Step, Totals
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace import read

FOLDER = Path(__file__).parent / "picture"
TRACE, PICTURE = FOLDER / "run.jsonl", FOLDER / "run.svg"
PROMPT, SEED, TOKENS = "Once upon a time", "11", "64"
WIDTH = 88
THEME = TerminalTheme(
    (24, 26, 31),
    (214, 217, 224),
    [(24, 26, 31), (224, 108, 117), (126, 190, 120), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
     (214, 217, 224)],
)  # fmt: skip


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    TRACE.write_bytes(fresh_run())
    PICTURE.write_text(draw(TRACE.read_text().splitlines()))


def fresh_run() -> bytes:
    command = [Path(sys.executable).parent / "generate", PROMPT, "--seed", SEED, "-n", TOKENS, "--jsonl"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout


def draw(trace: Sequence[str]) -> str:
    """The last frame of the live view as SVG, from a trace."""
    run, *steps, finish = read(trace)
    assert isinstance(run, Run)
    assert isinstance(finish, Finish)
    text, history, totals, step = [Segment(run.prompt, DIM)], [], Totals(), None
    for step in steps:
        assert isinstance(step, Step)
        totals = totals.plus(step)
        assert step.cache is not None
        history.append(step.cache.nbytes_used)
        if step.choices:
            text.append(Segment(step.text, token_style(step.choices[-1], "probability", TRUE_COLORS)))
    assert step is not None
    progress = Progress(run, totals, step.choices[-1], step.cache, history, finish)
    panel = Panel(progress, "full", height=40, color_by="probability", ramp=TRUE_COLORS)
    console = Console(
        file=io.StringIO(),
        record=True,
        width=WIDTH,
        color_system="truecolor",
        force_terminal=True,
        legacy_windows=False,
    )
    command = f'generate "{run.prompt}" --seed {run.seed} -n {len(steps)} --color-by probability'
    console.print(f"$ {command}", markup=False, highlight=False)
    console.print(Segments(wrap(text)))
    console.print(panel)
    return console.export_svg(title="tokenglass", theme=THEME, code_format=without_fonts(), unique_id="run")


def wrap(text: Sequence[Segment]) -> list[Segment]:
    """Fold segments at the picture's width, as a terminal does."""
    lines = Segment.split_lines(text)
    folded: list[Segment] = []
    for line in lines:
        column = 0
        for segment in line:
            for char in segment.text:
                if column == WIDTH:
                    folded.append(Segment.line())
                    column = 0
                folded.append(Segment(char, segment.style))
                column += 1
        folded.append(Segment.line())
    return list(Segment.simplify(folded))


def without_fonts() -> str:
    """Rich's SVG frame without the fonts it would fetch from the net."""
    return re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


if __name__ == "__main__":
    main()

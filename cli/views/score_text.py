"""One scored text on a terminal: coloured by surprise as it is read, then its numbers and its worst tokens."""

from __future__ import annotations

import functools
import heapq
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.segment import Segment
from rich.table import Table

from tokenglass.cli.terminal.console import ColorWhen, make_console
from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.text import plural
from tokenglass.cli.views.score import Scoring
from tokenglass.cli.widgets.surprise import SurpriseLegend, drawn_line, lines_of, parts_of
from tokenglass.cli.widgets.token_text import ramp_of
from tokenglass.cli.widgets.widget import Glyphs, Row, Widget, glyphs_of, label_fields, percent, probability
from tokenglass.model.measuring.scoring import Score, Tally, surprise
from tokenglass.model.records.steps import Choice

WIDE = 60  # columns


def show_text(scoring: Scoring, worst: int, color: ColorWhen) -> None:
    """The one text of this scoring, and its `worst` tokens."""
    console = make_console(sys.stdout, color=color)
    (text,) = scoring.texts
    tally, surprising = Tally(text), Surprising(worst)
    choices = surprising.watch(tally.watch(scoring.choices(text)))
    for line in lines_of(parts_of(text, choices)):
        console.print(drawn_line(line, console))
    if not tally.score.scored:
        return
    console.print()
    console.print(SurpriseLegend(ramp_of(console)))
    console.print(ScoreLine(tally.score, scoring.start if text.added else ""))
    if surprising.choices:
        console.print()
        console.print(worst_table(surprising.choices, console))


class Surprising:
    """The tokens that took most bits, while all of them pass by."""

    def __init__(self, count: int):
        self._count = count
        self._heap: list[tuple[float, int, Choice]] = []

    def watch(self, choices: Iterable[Choice]) -> Iterator[Choice]:
        """The same choices."""
        for choice in choices:
            if self._count and choice.logprob is not None:
                entry = (-choice.logprob, -choice.position, choice)
                keep = heapq.heappush if len(self._heap) < self._count else heapq.heappushpop
                keep(self._heap, entry)
            yield choice

    @property
    def choices(self) -> list[Choice]:
        """The most surprising first; of the same, the earlier."""
        return [choice for _, _, choice in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


@dataclass(frozen=True, slots=True)
class ScoreLine(Widget):
    """The numbers of one text, and what its first token was scored by."""

    score: Score
    start: str  # what the tokenizer puts before the text

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        score = self.score
        words = [
            f"perplexity {score.perplexity:,.2f}",
            "no bits per byte" if score.bits_per_byte is None else f"{score.bits_per_byte:.3f} bits per byte",
            f"{score.bits:,.1f} bits",
            plural(score.scored, "token"),
            f"the first behind {self.start}" if self.start else "the first not scored",
        ]
        return label_fields("score", [[Segment(word)] for word in words], width, glyphs)


def worst_table(choices: list[Choice], console: Console) -> Table:
    """The most surprising tokens, and what the model would rather have read; less of each where it is narrow."""
    is_wide = console.width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3 if is_wide else 1, 0, 0))
    numbers = ("bits", "rank", "entropy", "at") if is_wide else ("bits", "rank", "at")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("token", "expected"):
        table.add_column(heading, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    shown = functools.partial(visible_piece, ascii_only=glyphs_of(console.options).ascii_only)
    for choice in choices:
        assert choice.logprob is not None
        cells = {
            "bits": f"{surprise(choice.logprob):.1f}",
            "rank": "-" if choice.rank is None else f"{choice.rank:,}",
            "entropy": "-" if choice.entropy is None else f"{choice.entropy:.1f}",
            "at": f"{choice.position:,}",
        }
        expected = [(shown(other.piece), percent(probability(other.logprob))) for other in choice.candidates[:1]]
        table.add_row(*(cells[heading] for heading in numbers), shown(choice.piece), *itertools.chain(*expected))
    return table

"""Generated text, each token coloured by how probable or how open it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.widgets.widget import PLAIN, Glyphs, Row, Widget, labelled
from tokenglass.model.records.steps import Choice

ColorBy = Literal["none", "probability", "entropy"]

# From expected to surprising. The plain colours read on light and dark; the attributes carry it where colour is off.
LEVELS = (Style(color="green"), Style(color="cyan"), Style(color="magenta"), Style(color="red", bold=True))
LEVELS_WITHOUT_COLOR = (PLAIN, Style(underline=True), Style(bold=True), Style(bold=True, underline=True))
PROBABILITIES = (0.6, 0.2, 0.05)  # at least
ENTROPIES = (1.0, 3.0, 5.0)  # bits, below


def level(choice: Choice, color_by: ColorBy) -> int | None:
    """0 for expected to 3 for surprising; None where the number was not reported."""
    if color_by == "probability" and choice.prob is not None:
        return sum(choice.prob < least for least in PROBABILITIES)
    if color_by == "entropy" and choice.entropy is not None:
        return sum(choice.entropy >= most for most in ENTROPIES)
    return None


def token_style(choice: Choice, color_by: ColorBy, *, colors: bool) -> Style:
    """The style of a token's text."""
    found = level(choice, color_by)
    return PLAIN if found is None else (LEVELS if colors else LEVELS_WITHOUT_COLOR)[found]


@dataclass(frozen=True, slots=True)
class Legend(Widget):
    """What the styles mean, each word in its own."""

    color_by: ColorBy
    colors: bool

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        styles = LEVELS if self.colors else LEVELS_WITHOUT_COLOR
        fields = [Segment(text, style) for text, style in zip(self.words(width), styles, strict=True)]
        name = "final probability" if self.color_by == "probability" else "entropy"
        return labelled("text", [[Segment(f"{name}:")], *([field] for field in fields)], width, glyphs, gap=2)

    def words(self, width: int) -> Sequence[str]:
        if self.color_by == "probability":
            return ("60 % up", "20 % up", "5 % up", "below") if width >= 60 else ("60 %", "20 %", "5 %", "less")
        return ("below 1 bit", "below 3", "below 5", "more") if width >= 60 else ("<1 bit", "<3", "<5", "more")

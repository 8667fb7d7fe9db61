"""Generated text, each token coloured by how probable or how open it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rich.console import Console
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.widgets.widget import PLAIN, Glyphs, Row, Widget, label_fields
from tokenglass.model.records.steps import Choice

ColorBy = Literal["none", "probability", "entropy"]
Ramp = tuple[Style, ...]  # from expected to surprising

# From blue to red, equally bright: they read on light and dark. Green is the chosen token's.
TRUE_COLORS: Ramp = tuple(Style(color=color) for color in ("#3f83c8", "#8b6ed6", "#c4529f", "#dd4b39"))
SIXTEEN_COLORS: Ramp = (
    Style(color="cyan"),
    Style(color="magenta"),
    Style(color="red"),
    Style(color="red", bold=True),
)
NO_COLORS: Ramp = (PLAIN, Style(underline=True), Style(bold=True), Style(bold=True, underline=True))

PROBABILITIES = (0.6, 0.2, 0.05)  # at least
ENTROPIES = (1.0, 3.0, 5.0)  # bits, below


def ramp_of(console: Console) -> Ramp | None:
    """The styles that a console can show; None where it has none at all."""
    if console.color_system is None:
        return None
    if console.no_color:
        return NO_COLORS
    return SIXTEEN_COLORS if console.color_system in ("standard", "windows") else TRUE_COLORS


def level(choice: Choice, color_by: ColorBy) -> int | None:
    """0 for expected to 3 for surprising; None where the number was not reported."""
    if color_by == "probability" and choice.prob is not None:
        return sum(choice.prob < least for least in PROBABILITIES)
    if color_by == "entropy" and choice.entropy is not None:
        return sum(choice.entropy >= most for most in ENTROPIES)
    return None


def token_style(choice: Choice, color_by: ColorBy, ramp: Ramp | None) -> Style:
    """The style of a token's text."""
    shade = level(choice, color_by)
    return PLAIN if shade is None or ramp is None else ramp[shade]


def styled_token(text: str, style: Style) -> list[Segment]:
    """The text in its style; blanks before a word are not underlined."""
    blanks = len(text) - len(text.lstrip(" ")) if style.underline else 0
    return [Segment(part, part_style) for part, part_style in ((text[:blanks], None), (text[blanks:], style)) if part]


def ranges(bounds: Sequence[float], unit: str, glyphs: Glyphs) -> list[str]:
    """The ranges that rising bounds make, in words, from the lowest up."""
    to, least = ("-", ">=") if glyphs.ascii_only else ("–", "≥")
    first = unit.removesuffix("s") if bounds[0] == 1 else unit
    between = [f"{low:g}{to}{high:g} {unit}" for low, high in pairwise(bounds)]
    return [f"< {bounds[0]:g} {first}", *between, f"{least} {bounds[-1]:g} {unit}"]


@dataclass(frozen=True, slots=True)
class Legend(Widget):
    """What the styles mean, each range in its own."""

    color_by: ColorBy
    ramp: Ramp

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        if self.color_by == "probability":
            name, labels = (
                "final probability",
                ranges([100 * least for least in PROBABILITIES[::-1]], "%", glyphs)[::-1],
            )
        else:
            name, labels = "entropy", ranges(ENTROPIES, "bits", glyphs)
        fields = [[Segment(text, style)] for text, style in zip(labels, self.ramp, strict=True)]
        return label_fields("text", [[Segment(name)], *fields], width, glyphs, gap=2)

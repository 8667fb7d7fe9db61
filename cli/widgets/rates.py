"""Tokens per second as bars, to be compared at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment

from tokenglass.cli.widgets.widget import BAR, BOLD, DIM, Glyphs, Row, Widget, bar, cell, crop

MOST = 60  # cells of a bar


@dataclass(frozen=True, slots=True)
class Rate:
    """One bar: the median, and behind it how far the fastest run went."""

    label: str
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Rates(Widget):
    """A title and a bar per rate, all on one scale from zero."""

    title: str
    rates: Sequence[Rate]

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        labels = max(len(rate.label) for rate in self.rates)
        numbers = max(len(in_digits(rate.median)) for rate in self.rates)
        room = min(MOST, width - labels - numbers - 4)
        top = max(rate.high for rate in self.rates)
        drawn = [crop([Segment(self.title, BOLD)], width, glyphs)]
        for rate in self.rates:
            row = [
                cell(rate.label, labels, right=True),
                Segment("  "),
                cell(in_digits(rate.median), numbers, right=True),
            ]
            if room >= 4:
                solid = bar(rate.median / top, room, glyphs)
                spread = round(rate.high / top * room) - len(solid)
                row += [Segment("  "), Segment(solid, BAR), Segment(glyphs.track * max(0, spread), DIM)]
            drawn.append(crop(row, width, glyphs))
        return drawn


def in_digits(rate: float) -> str:
    """1,234 or 12.3: three digits at least."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:,.1f}"

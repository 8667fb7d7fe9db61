"""How full the cache is, what it costs, and how it grew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.text import nbytes
from tokenglass.cli.widgets.widget import Glyphs, Row, Widget, curve, gauge, label_fields, one_line
from tokenglass.model.records.steps import CacheUsage, Totals

FULL = Style(color="magenta")
CURVE = 16


@dataclass(frozen=True, slots=True)
class CacheBar(Widget):
    """`history` is bytes used after each step. Without a usage: positions computed by each, or that nobody tells."""

    usage: CacheUsage | None
    history: Sequence[float]
    totals: Totals
    details: bool = True
    is_reported: bool = True

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        if not self.is_reported:
            return label_fields("cache", [[Segment("not reported")]], width, glyphs)
        if self.usage is None:
            return label_fields("cache", self.without(glyphs), width, glyphs)[: None if self.details else 1]
        usage, cells = self.usage, 20 if width >= 60 else 8
        positions = [
            *gauge(usage.length / usage.limit if usage.limit else 0, cells, glyphs, FULL),
            Segment(f"  {usage.length:,} of {usage.limit:,}" + (" positions" if width >= 40 else "")),
        ]
        if not self.details:
            return label_fields("cache", [positions], width, glyphs)
        rows = label_fields("cache", [positions], width, glyphs)
        fields: list[Row] = [
            [Segment(f"{nbytes(usage.nbytes_used)} used, {nbytes(usage.nbytes_held)} held")],
            [
                Segment(f"+{nbytes(usage.bytes_per_token)} per token "),
                Segment(curve(self.history, CURVE, glyphs), FULL),
            ],
        ]
        if usage.states:
            kinds = (f"{nbytes(state.nbytes_used)} {one_line(state.name, glyphs)}" for state in usage.states)
            fields.append([Segment(", ".join(kinds))])
        if usage.evicted:
            fields.append([Segment(f"{usage.evicted:,} evicted")])
        if width >= 100:
            return label_fields("cache", [positions, *fields], width, glyphs)
        return [*rows, *label_fields("", fields, width, glyphs)]

    def without(self, glyphs: Glyphs) -> list[Row]:
        needed = self.totals.prefill_tokens + max(0, self.totals.new_tokens - 1)
        computed = f"{self.totals.positions_computed:,} computed so far, a cache would need {needed:,} "
        return [
            [Segment("off (--no-cache): every step computes all positions again")],
            [Segment(computed), Segment(curve(self.history, CURVE, glyphs), FULL)],
        ]

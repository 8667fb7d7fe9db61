"""The rows of `Step.flow` in the live panel: where the step looked, and when the layers settled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.segment import Segment

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.widget import BOLD, CHOSEN, DIM, PLAIN, Glyphs, Row, Widget, curve, label_fields, percent

FlowRow = Mapping[str, float | str | None]


@dataclass(frozen=True, slots=True)
class FlowPanel(Widget):
    """At most `limit` positions, those that the choice leans on most: the chosen token's probability without each."""

    flow_rows: Sequence[FlowRow]
    limit: int = 5

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        sums = next((row for row in self.flow_rows if row.get("row") == "sums"), None)
        if sums is None:
            return []
        now = math.exp(min(0.0, numeric(sums, "logprob")))
        positions = [row for row in self.flow_rows if row.get("row") == "position"]
        positions.sort(key=lambda row: -numeric(row, "kl_bits"))
        fields: list[Row] = [[Segment("without", DIM)]]
        for row in positions[: self.limit]:
            left = min(1.0, now * math.exp(min(50.0, numeric(row, "logprob_change"))))
            matters = left <= 0.9 * now
            fields.append(
                [
                    Segment(piece_of(row, glyphs), BOLD if matters else PLAIN),
                    Segment(f" {percent(left)}", PLAIN if matters else DIM),
                ]
            )
        drawn = label_fields("from", fields, width, glyphs, gap=2) if positions else []
        return [*drawn, *self.layers(sums, width, glyphs)]

    def layers(self, sums: FlowRow, width: int, glyphs: Glyphs) -> list[Row]:
        """The chosen token's share in the lens, layer by layer, and from where on the top token is the final one."""
        layers = [row for row in self.flow_rows if row.get("row") == "layer"]
        if not layers:
            return []
        depth, last = int(numeric(sums, "commit_depth")), len(layers) - 1
        shares = [min(1.0, max(0.0, numeric(row, "prob"))) for row in layers]
        fields: list[Row] = [
            [Segment("lens ", DIM), Segment(curve(shares, min(len(shares), 32, max(8, width // 4)), glyphs), CHOSEN)],
            [Segment(f"settled in layer {depth:,} of {last:,}" if depth else "settled from the start")],
        ]
        if 0 < depth <= last:
            fields.append([Segment("before: ", DIM), Segment(piece_of(layers[depth - 1], glyphs, "top"))])
        return label_fields("layers", fields, width, glyphs, gap=2)


def numeric(row: FlowRow, name: str) -> float:
    """A number of a row; 0 where it is not one, as in a damaged trace."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def piece_of(row: FlowRow, glyphs: Glyphs, name: str = "piece") -> str:
    return visible_piece(str(row.get(name) or "").encode("utf-8", "replace"), ascii_only=glyphs.ascii_only)

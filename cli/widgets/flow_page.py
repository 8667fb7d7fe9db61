"""Everything about one choice: sentences, the text, and the tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.console import Console

from tokenglass.cli.terminal.wrapping import width_of_tables
from tokenglass.cli.widgets.flow_grid import FlowGrid
from tokenglass.cli.widgets.flow_layers import FlowLayers
from tokenglass.cli.widgets.flow_parts import FlowParts
from tokenglass.cli.widgets.influence import InfluenceLegend, InfluenceText
from tokenglass.cli.widgets.lines import Rule
from tokenglass.cli.widgets.prose import prose, quote_token
from tokenglass.cli.widgets.widget import Glyphs, Row, Widget, crop, percent
from tokenglass.model.inspection.records import Flow, PositionFlow


def styles_of(console: Console) -> str:
    """How a console can set text apart: in color, by attributes such as underline, or not at all (none)."""
    return "none" if console.color_system is None else "attributes" if console.no_color else "color"


@dataclass(frozen=True, slots=True)
class FlowHead(Widget):
    """The choice in sentences."""

    flow: Flow

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        flow = self.flow
        chosen, other = quote_token(flow.chosen.piece, glyphs), quote_token(flow.runner_up.piece, glyphs)
        other_name = "the runner-up" if flow.rank == 1 else "the most probable"
        shares = [percent(math.exp(logprob)) for logprob in (flow.logprob, flow.runner_up_logprob)]
        sentences = [f"{chosen} at position {flow.position:,} had {shares[0]} (rank {flow.rank:,});"]
        sentences.append(f"{other_name}, {other}, had {shares[1]}.")
        place = strongest(flow)
        if place is not None and place.direct is not None:
            left = percent(min(1.0, math.exp(flow.logprob + place.direct.logprob_change)))
            piece = quote_token(place.token.piece, glyphs)
            sentences.append(
                f"{piece} at {place.position:,} moves this step most: without it, {chosen} would have {left}."
            )
        layers = len(flow.layers) - 1
        sentences.append(
            "The final top token is on top from the embedding on."
            if flow.commit_depth == 0
            else f"The final top token is on top from layer {flow.commit_depth} of {layers} on."
        )
        return prose(sentences, width)


def strongest(flow: Flow) -> PositionFlow | None:
    """The position whose hiding moves the distribution most, the first position left aside."""
    inner = [place for place in flow.positions[1:] if place.direct is not None]
    return max(inner, key=lambda place: place.direct.kl_bits if place.direct else 0.0, default=None)


@dataclass(frozen=True, slots=True)
class FlowPage(Widget):
    """All of it, one below the other; no table has more than `limit` rows."""

    flow: Flow
    styles: str = "color"
    limit: int = 12
    lines: int = 20

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        width, flow = width_of_tables(width), self.flow
        parts: list[Widget] = [
            FlowHead(flow),
            InfluenceText(flow, self.styles, self.lines),
            InfluenceLegend(self.styles),
            Rule("from the earlier tokens"),
            FlowGrid(flow, self.limit),
            Rule("through the layers"),
            FlowLayers(flow, self.limit),
            Rule("added up"),
            FlowParts(flow, self.limit),
        ]
        rows: list[Row] = []
        for part in parts:
            if isinstance(part, Rule | InfluenceText):
                rows.append([])
            rows += part.rows(width, glyphs)
        return [crop(row, width, glyphs) for row in rows]

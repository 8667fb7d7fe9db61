"""What came from each earlier token: without it, in logits, and layer by layer as a strip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.influence import level
from tokenglass.cli.widgets.prose import glossary, quote_token
from tokenglass.cli.widgets.widget import BAR, BOLD, DIM, PLAIN, Glyphs, Row, Widget, bar, cell, percent
from tokenglass.model.inspection.records import Effect, Flow, PositionFlow

NUMBER = 7  # cells of ">99.9 %"
AGAINST = Style(color="magenta")
NEGATIVE = ("░▒▓", ",xX")  # glyphs of what speaks against the choice


@dataclass(frozen=True, slots=True)
class FlowGrid(Widget):
    """At most `limit` positions, those that tell most, in the order of the text; the first position stands apart."""

    flow: Flow
    limit: int = 12
    explained: bool = True

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        shown = telling(self.flow, self.limit)
        highest = max((abs(part) for place in self.flow.positions[1:] for part in place.attribution), default=0.0)
        columns = Columns.fitting(width, len(self.flow.layers) - 1, self.has_total)
        rows = [columns.heading(glyphs)]
        left_out = len(self.flow.positions) - len(shown)
        for place in shown:
            rows.append(self.row(place, columns, highest, glyphs))
            if place.position == 0 and len(shown) > 1:
                note = "     (the first position: attention often just rests there)"
                rows.append([cell(note, min(width, len(note)), DIM, glyphs=glyphs)])
        if left_out:
            rows.append([cell(f"     {left_out:,} more that matter less", min(width, 40), DIM, glyphs=glyphs)])
        return rows + (self.words(columns, width, glyphs) if self.explained else [])

    @property
    def has_total(self) -> bool:
        return any(place.total is not None for place in self.flow.positions)

    def row(self, place: PositionFlow, columns: Columns, highest: float, glyphs: Glyphs) -> Row:
        style = BOLD if level(place.direct) in (1, 2) else DIM if place.position == 0 else PLAIN
        piece = visible_piece(place.token.piece, ascii_only=glyphs.ascii_only)
        row = [
            cell(f"{place.position:,} ", columns.position, DIM, right=True),
            cell(piece, columns.piece, style, glyphs=glyphs),
            Segment(" "),
            cell(self.without(place.direct, glyphs), NUMBER + 2, style, right=True),
        ]
        if columns.total:
            row.append(cell(self.without(place.total, glyphs), columns.total, style, right=True))
        if columns.bar:
            share = (place.direct.kl_bits if place.direct else 0) / max(self.most_bits, 1e-9)
            row += [Segment("  "), cell(bar(share, columns.bar, glyphs) if place.direct else "", columns.bar, BAR)]
        if columns.bits:
            row.append(
                cell(f"{place.direct.kl_bits:.2f}" if place.direct else glyphs.none, columns.bits, style, right=True)
            )
        if columns.logit:
            row.append(cell(f"{place.logit:+.2f}", columns.logit, style, right=True))
        if columns.weight:
            row.append(cell(percent(place.mean_weight), columns.weight, DIM, right=True))
        if columns.strip:
            row += [Segment("  "), *strip(pool(place.attribution, columns.strip), highest * columns.pool, glyphs)]
        return row

    def without(self, effect: Effect | None, glyphs: Glyphs) -> str:
        if effect is None:
            return "here"
        return percent(min(1.0, math.exp(self.flow.logprob + effect.logprob_change)), glyphs)

    @property
    def most_bits(self) -> float:
        return max((place.direct.kl_bits for place in self.flow.positions if place.direct is not None), default=0.0)

    def words(self, columns: Columns, width: int, glyphs: Glyphs) -> list[Row]:
        chosen, other = quote_token(self.flow.chosen.piece, glyphs), quote_token(self.flow.runner_up.piece, glyphs)
        has = percent(math.exp(self.flow.logprob))
        meanings = {
            "without": f"probability of {chosen} (it has {has}) if this step could not look at that token: the direct "
            "effect; the tokens between have read it already."
        }
        if columns.total:
            meanings["total"] = "the same if no later token had read it either (their positions stay)."
        if columns.bits:
            meanings["bits"] = "how far that moves the whole distribution (KL divergence)."
        if columns.logit:
            meanings["logits"] = f"what attention carried from it into logit {chosen} - logit {other}, exactly."
        if columns.weight:
            meanings["weight"] = "mean attention weight: a diagnostic, not an explanation."
        if columns.strip:
            plus, minus = glyphs.heights[-1], NEGATIVE[glyphs.ascii_only][-1]
            pool = f", {columns.pool} layers a cell" if columns.pool > 1 else ""
            meanings["by layer"] = f"the logits layer by layer, first to last{pool}; {plus} for, {minus} against."
        return glossary(meanings, width)


@dataclass(frozen=True, slots=True)
class Columns:
    """Cells of each column; 0 leaves it out. `pool` layers share a cell of the strip."""

    position: int
    piece: int
    total: int
    bar: int
    bits: int
    logit: int
    weight: int
    strip: int
    pool: int

    @staticmethod
    def fitting(width: int, layers: int, has_total: bool) -> Columns:
        total = NUMBER + 2 if has_total else 0
        if width < 60:
            left = width - 5 - 11 - 1 - (NUMBER + 2) - total
            return Columns(5, 11, total, left - 2 if left >= 6 else 0, 0, 0, 0, 0, 1)
        piece, bits, logit = (14, 8, 8) if width < 100 else (18, 8, 8)
        weight = 9 if width >= 100 else 0
        gauge = 0 if width < 76 else 8 if width < 100 else 12
        room = width - 5 - piece - 1 - (NUMBER + 2) - total - (gauge + 2 if gauge else 0) - bits - logit - weight - 2
        pool = max(1, math.ceil(layers / room)) if room > 0 else 1
        strip_cells = math.ceil(layers / pool) if room >= 8 else 0
        return Columns(5, piece, total, gauge, bits, logit, weight, strip_cells, pool)

    def heading(self, glyphs: Glyphs) -> Row:
        row = [
            cell("at ", self.position, DIM, right=True),
            cell("token", self.piece, DIM),
            Segment(" "),
            cell("without", NUMBER + 2, DIM, right=True),
        ]
        if self.total:
            row.append(cell("total", self.total, DIM, right=True))
        if self.bar:
            row.append(Segment(" " * (self.bar + 2)))
        for name, size in (("bits", self.bits), ("logits", self.logit), ("weight", self.weight)):
            if size:
                row.append(cell(name, size, DIM, right=True))
        if self.strip:
            row += [Segment("  "), cell("by layer", max(8, self.strip), DIM, glyphs=glyphs)]
        return row


def telling(flow: Flow, limit: int) -> list[PositionFlow]:
    """The positions that matter most: the first, the last, and those whose hiding moves the distribution most."""
    last = flow.positions[-1].position
    inner = [place for place in flow.positions if place.position not in (0, last)]
    inner.sort(key=lambda place: (-(place.direct.kl_bits if place.direct else 0.0), -abs(place.logit)))
    positions = {0, last, *(place.position for place in inner[: max(0, limit - 2)])}
    return [place for place in flow.positions if place.position in positions]


def pool(values: Sequence[float], width: int) -> list[float]:
    """Sums of neighbours, in `width` groups as even as can be."""
    pool = math.ceil(len(values) / width)
    return [sum(values[start : start + pool]) for start in range(0, len(values), pool)]


def strip(values: Sequence[float], highest: float, glyphs: Glyphs) -> Row:
    """One cell per value: a column for what speaks for the choice, a shade for what speaks against it."""
    drawn: Row = []
    for value in values:
        share = min(1.0, abs(value) / highest) if highest else 0.0
        against = NEGATIVE[glyphs.ascii_only]
        if share < 0.04:
            drawn.append(Segment("·" if not glyphs.ascii_only else " ", DIM))
        elif value > 0:
            drawn.append(Segment(glyphs.heights[round(share * (len(glyphs.heights) - 1))], BAR))
        else:
            drawn.append(Segment(against[min(len(against) - 1, int(share * len(against)))], AGAINST))
    return list(Segment.simplify(drawn))

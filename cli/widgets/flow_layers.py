"""Through the layers: what the head would read there, and what attention and the MLP added."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from rich.segment import Segment

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.prose import glossary, quote_token
from tokenglass.cli.widgets.widget import BAR, BOLD, CHOSEN, DIM, PLAIN, Glyphs, Row, Widget, bar, cell, percent
from tokenglass.model.inspection.records import Flow, LayerFlow

NUMBER = 7


@dataclass(frozen=True, slots=True)
class FlowLayers(Widget):
    """At most `limit` layers: the embedding, the commit depth and what is before it, the last, evenly picked others."""

    flow: Flow
    limit: int = 12
    explained: bool = True

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        shown = pick_rows(len(self.flow.layers), self.flow.commit_depth, self.limit)
        rows = [heading(width)]
        rows += [self.row(self.flow.layers[layer], width, glyphs) for layer in shown]
        left_out = len(self.flow.layers) - len(shown)
        if left_out:
            rows.append([cell(f"         {left_out:,} more between them", min(width, 40), DIM, glyphs=glyphs)])
        return rows + (self.words(width, glyphs) if self.explained else [])

    def row(self, layer: LayerFlow, width: int, glyphs: Glyphs) -> Row:
        chosen = layer.top.token_id == self.flow.chosen.token_id
        committed = layer.layer >= self.flow.commit_depth
        mark = glyphs.marker if layer.layer == self.flow.commit_depth else " "
        name = "embed" if layer.layer == 0 else str(layer.layer)
        piece = visible_piece(layer.top.piece, ascii_only=glyphs.ascii_only)
        style = CHOSEN + BOLD if chosen else BOLD if committed else PLAIN
        row = [
            Segment(f" {mark} ", CHOSEN + BOLD),
            cell(f"{name} ", 6, DIM, right=True),
            cell(piece, 11 if width < 60 else 14, style, glyphs=glyphs),
            cell(percent(layer.top_prob), NUMBER + 1, style, right=True),
        ]
        if width < 60:
            return [*row, Segment(" "), cell(percent(layer.prob), NUMBER + 1, PLAIN, right=True)]
        gauge = gauge_of(width)
        row += [Segment("  "), cell(percent(layer.prob), NUMBER, PLAIN, right=True), Segment(" ")]
        row += [cell(bar(layer.prob, gauge, glyphs), gauge, CHOSEN if chosen else BAR)] if gauge else []
        row += [cell(f"{layer.rank:,}", 8, PLAIN, right=True), cell(f"{layer.kl_bits:.1f}", 7, PLAIN, right=True)]
        if width >= 76:
            row += [
                cell(norm_text(norm, glyphs), 8, DIM, right=True) for norm in (layer.attention_norm, layer.mlp_norm)
            ]
        if width >= 100:
            row += [cell(f"{layer.norm:,.1f}", 9, DIM, right=True)]
            row += [cell(glyphs.none if layer.cosine is None else f"{layer.cosine:.2f}", 8, DIM, right=True)]
        return row

    def words(self, width: int, glyphs: Glyphs) -> list[Row]:
        chosen = quote_token(self.flow.chosen.piece, glyphs)
        meanings = {
            "reads as": "the logit lens: what the model would say if it stopped after that layer, and how surely.",
            "chosen": f"the share of {chosen} there"
            + (", its rank, and the bits to the final say." if width >= 60 else "."),
            glyphs.marker: "the commit depth: from there on the top token is the final one.",
        }
        if width >= 76:
            meanings["attn, MLP"] = "length of what each added to the residual stream."
        if width >= 100:
            meanings["norm, cosine"] = "length of the residual stream, and its direction against the layer before."
        return glossary(meanings, width)


def heading(width: int) -> Row:
    row = [cell("layer ", 9, DIM, right=True), cell("reads as", 11 if width < 60 else 14, DIM)]
    row.append(Segment(" " * (NUMBER + 1)))
    if width < 60:
        return [*row, Segment(" "), cell("chosen", NUMBER + 1, DIM, right=True)]
    row += [Segment("  "), cell("chosen", NUMBER + 1 + gauge_of(width), DIM)]
    names = [("rank", 8), ("bits", 7)]
    names += [("attn", 8), ("MLP", 8)] if width >= 76 else []
    names += [("norm", 9), ("cosine", 8)] if width >= 100 else []
    return row + [cell(name, size, DIM, right=True) for name, size in names]


def gauge_of(width: int) -> int:
    """Cells of the bar: what the other columns leave, 14 at most."""
    return max(0, min(14, width - (56 if width < 76 else 72 if width < 100 else 89)))


def norm_text(norm: float | None, glyphs: Glyphs) -> str:
    return glyphs.none if norm is None else f"{norm:,.1f}"


def pick_rows(count: int, commit: int, limit: int) -> list[int]:
    """Rows of `count` to show: those that must be there, then others as evenly as can be."""
    if count <= limit:
        return list(range(count))
    rows = dict.fromkeys((count - 1, commit, 0, max(0, commit - 1)))
    chosen = set(list(rows)[:limit])
    while len(chosen) < limit:
        gaps = sorted(chosen)
        _, start, end = max((end - start, -start, end) for start, end in pairwise(gaps))
        chosen.add((-start + end) // 2)
    return sorted(chosen)

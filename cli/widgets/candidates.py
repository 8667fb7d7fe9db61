"""The candidates of a choice: raw and final probability, and what removed those that could not be drawn."""

from __future__ import annotations

from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.widget import (
    BAR,
    BOLD,
    CHOSEN,
    DIM,
    PLAIN,
    Glyphs,
    Row,
    Widget,
    bar,
    bar_leftwards,
    cell,
    percent,
    probability,
)
from tokenglass.model.records.steps import Candidate, Choice

NUMBER = 7  # cells of ">99.9 %"
WIDEST_BAR = 24
RANK = 6


@dataclass(frozen=True, slots=True)
class Columns:
    """Cells of each column; 0 leaves it out. Where both bars are there, they grow from one axis."""

    rank: int
    piece: int
    raw: int
    raw_bar: int
    final_bar: int

    @staticmethod
    def fitting(width: int) -> Columns:
        """The same for every step of a run, so that nothing jumps."""
        if width < 32:
            return Columns(0, max(2, width - 3 - NUMBER - 2), 0, 0, 0)
        if width < 60:
            return Columns(0, 11, NUMBER, 0, max(0, width - 3 - 11 - 2 * (NUMBER + 2) - 2))
        piece = 16 if width < 100 else 22
        bars = (width - 3 - RANK - piece - 2 * (2 + NUMBER) - 2) // 2
        return Columns(RANK, piece, NUMBER, min(bars, WIDEST_BAR), min(bars, WIDEST_BAR))

    @property
    def raw_start(self) -> int:
        """Cells before the raw column."""
        return 3 + self.rank + self.piece


@dataclass(frozen=True, slots=True)
class CandidateTable(Widget):
    """At most `limit` candidates, the chosen one always; `highlighted` is an index into the candidates."""

    choice: Choice
    limit: int = 1000
    heading: bool = True
    together: bool = True
    highlighted: int | None = None

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        columns = Columns.fitting(width)
        shown = self.visible_indices()
        rows = [self.row(index, columns, glyphs) for index in shown]
        if self.heading and columns.raw:
            rows.insert(0, heading(columns, glyphs))
        if self.together and shown:
            rows.append(self.sums([self.choice.candidates[index] for index in shown], columns, glyphs))
        return rows

    def visible_indices(self) -> list[int]:
        """Indices of the candidates that fit, the chosen and the highlighted one among them."""
        candidates = self.choice.candidates
        indices = self.choice.possible_first[: self.limit]
        chosen = next((k for k, other in enumerate(candidates) if other.token_id == self.choice.token_id), None)
        for wanted in (chosen, self.highlighted):
            if wanted is not None and indices and wanted not in indices:
                indices[-1] = wanted
        return indices

    def row(self, index: int, columns: Columns, glyphs: Glyphs) -> Row:
        candidate = self.choice.candidates[index]
        chosen = candidate.token_id == self.choice.token_id
        cut = candidate.removed_by is not None
        style = BOLD if chosen else DIM if cut else PLAIN
        fill = DIM if cut else CHOSEN if chosen else BAR
        raw = probability(candidate.logprob)
        rank = candidate.rank or (self.choice.rank if chosen and self.choice.rank else index + 1)
        piece = visible_piece(candidate.piece, ascii_only=glyphs.ascii_only)
        piece_style = CHOSEN + BOLD if chosen else style
        if index == self.highlighted:
            piece_style += Style(reverse=True)
        row = [Segment(f" {glyphs.marker if chosen else ' '} ", CHOSEN + BOLD)]
        if columns.rank:
            row.append(cell(f"{rank:,}  ", columns.rank, DIM, right=True))
        row.append(cell(piece, columns.piece, piece_style, glyphs=glyphs))
        if columns.raw:
            row += [Segment("  "), cell(percent(raw), NUMBER, style, right=True)]
        if columns.raw_bar:
            final = "" if cut else percent(candidate.prob, glyphs)
            grown = bar_leftwards(raw or 0.0, columns.raw_bar, glyphs)
            row += [Segment("  "), cell(final, NUMBER, style, right=True), Segment(" ")]
            row += [cell(grown, columns.raw_bar, fill, right=True), Segment(glyphs.axis, DIM)]
            return row + self.final_side(candidate, columns.final_bar, fill, glyphs)
        row.append(Segment("  "))
        if cut:
            room = NUMBER + (1 + columns.final_bar if columns.final_bar else 0)
            return [*row, cell(self.why(candidate, room), room, DIM, glyphs=glyphs)]
        row.append(cell(percent(candidate.prob, glyphs), NUMBER, style, right=True))
        if columns.final_bar:
            row += [Segment(" "), Segment(bar(candidate.prob or 0, columns.final_bar, glyphs), fill)]
        return row

    def final_side(self, candidate: Candidate, room: int, fill: Style, glyphs: Glyphs) -> Row:
        """Right of the axis: the final bar, or what cut the candidate."""
        if candidate.removed_by is not None:
            return [Segment(f" {self.why(candidate, room - 1)}"[:room], DIM)]
        filled = bar(candidate.prob or 0, room, glyphs)
        return [Segment(filled, fill), *self.moves(candidate, room - len(filled), glyphs)]

    def moves(self, candidate: Candidate, room: int, glyphs: Glyphs) -> Row:
        """What moved it most and by how much, in the room beside its bar: number and name, the name, or nothing."""
        if not candidate.moved:
            return []
        name, change = max(candidate.moved, key=lambda move: abs(move[1]))
        more = f" +{len(candidate.moved) - 1}" if len(candidate.moved) > 1 else ""
        number = f"{change:+.2f}" if glyphs.ascii_only else f"{change:+.2f}".replace("-", "−")
        for label in (f" {number} {name}{more}", f" {name}"):
            if len(label) <= room:
                return [Segment(label, DIM)]
        return []

    def why(self, candidate: Candidate, room: int) -> str:
        """What removed it; temperature removes nothing but at 0, where only the first is left."""
        name = "greedy" if candidate.removed_by == "temperature" else candidate.removed_by or ""
        words = f"cut by {name}"
        return words if len(words) <= room else name

    def sums(self, shown: list[Candidate], columns: Columns, glyphs: Glyphs) -> Row:
        raw = percent(min(1.0, sum(probability(candidate.logprob) or 0.0 for candidate in shown)))
        probs = [candidate.prob for candidate in shown if candidate.prob is not None]
        final = percent(min(1.0, sum(probs)) if probs else None, glyphs)
        label = f"these {len(shown)} together" if columns.piece + columns.rank > 14 else f"these {len(shown)}"
        row = [Segment("   "), cell(label, columns.raw_start - 3, DIM, glyphs=glyphs)]
        if columns.raw:
            row += [Segment("  "), cell(raw, NUMBER, DIM, right=True)]
        row.append(Segment("  "))
        return [*row, cell(final, NUMBER, DIM, right=True)]


def heading(columns: Columns, glyphs: Glyphs) -> Row:
    """Which column is what, in as many words as there is room for."""
    rank = [cell("rank  ", columns.rank, DIM, right=True)] if columns.rank else []
    row = [Segment("   "), *rank, cell("token", columns.piece, DIM)]
    row += [cell(name, NUMBER + 2, DIM, right=True) for name in ("raw", "final")]
    if columns.raw_bar < 11:
        return row
    between = "|" if glyphs.ascii_only else "│"
    return [*row, cell(f"the model {between}", columns.raw_bar + 2, DIM, right=True), Segment(" as sampled", DIM)]

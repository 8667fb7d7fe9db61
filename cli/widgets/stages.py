"""One choice unfolded: from the model's distribution to the final one, at other temperatures, and drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.text import plural
from tokenglass.cli.widgets.candidates import NUMBER, CandidateTable, Columns
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
    crop,
    curve,
    percent,
)
from tokenglass.model.records.steps import Candidate, Choice

if TYPE_CHECKING:
    from tokenglass.model.sampling.stages import Stage

TEMPERATURES = (0.2, 0.8, 1.5)
SHARE = NUMBER + 3  # cells of a column: a gap, a small bar, a blank, a number
POSSIBLE = 10


@dataclass(frozen=True, slots=True)
class StageTable(Widget):
    """A row for each stage, from raw to final; a column for each candidate, and one for all other tokens."""

    choice: Choice
    stages: Sequence[Stage]  # of the candidates' tokens

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        longest = 3 + max(len(name_of(stage)) for stage in self.stages)
        label = min(max(12, longest), width // 3 if width >= 60 else max(8, width - 2 * SHARE))
        room = width - label - (POSSIBLE if width >= 60 else 0) - SHARE
        shown = CandidateTable(self.choice, max(1, room // SHARE)).visible_indices()
        heading = [cell("   after", label, DIM)]
        for index in shown:
            candidate = self.choice.candidates[index]
            piece = visible_piece(candidate.piece, ascii_only=glyphs.ascii_only)
            is_chosen = candidate.token_id == self.choice.token_id
            piece = f"{glyphs.marker} {piece}" if is_chosen else piece
            name = cell(piece, SHARE - 1, CHOSEN + BOLD if is_chosen else PLAIN, right=True, glyphs=glyphs)
            heading += [Segment(" "), name]
        heading.append(cell("others", SHARE, DIM, right=True))
        if width >= 60:
            heading.append(cell("possible", POSSIBLE, DIM, right=True))
        rows = [heading]
        for number, stage in enumerate(self.stages):
            before = self.stages[number - 1] if number else None
            rows.append(self.row(stage, before, shown, label, width, glyphs))
        final = [candidate.prob or 0.0 for candidate in self.choice.candidates]
        last = replace(self.stages[-1], name="final", settings="", probs=tuple(final))
        return [*rows, self.row(last, None, shown, label, width, glyphs)]

    def row(
        self, stage: Stage, before: Stage | None, shown: Sequence[int], label: int, width: int, glyphs: Glyphs
    ) -> Row:
        """What changed nothing is dim; what was cut here is named so, and later is not there."""
        is_idle = before is not None and (before.probs, before.num_possible) == (stage.probs, stage.num_possible)
        is_end = before is None
        row = [cell(f"   {name_of(stage)}", label, BOLD if is_end else DIM if is_idle else PLAIN, glyphs=glyphs)]
        for index in shown:
            is_chosen = self.choice.candidates[index].token_id == self.choice.token_id
            is_cut = before is not None and before.probs[index] > 0 == stage.probs[index]
            row += share(stage.probs[index], is_chosen, glyphs, is_cut=is_cut, is_idle=is_idle)
        others = max(0.0, 1.0 - sum(stage.probs[index] for index in shown))
        row.append(cell(percent(others if others > 1e-9 else 0.0, glyphs), SHARE, DIM, right=True))
        if width >= 60:
            row.append(cell(f"{stage.num_possible:,}", POSSIBLE, DIM, right=True))
        return row


def share(prob: float, is_chosen: bool, glyphs: Glyphs, *, is_cut: bool, is_idle: bool) -> Row:
    """A probability as a number with a small column before it."""
    style = CHOSEN if is_chosen else PLAIN
    if not prob:
        return [Segment("  "), cell("cut" if is_cut else glyphs.none, SHARE - 2, DIM, right=True)]
    column = curve([prob, 1.0], 2, glyphs)[0]
    number = cell(percent(prob), NUMBER, DIM if is_idle else style, right=True)
    return [Segment(" "), Segment(column, style if is_chosen else BAR), Segment(" "), number]


def name_of(stage: Stage) -> str:
    """The processor and the first of its settings."""
    return f"{stage.name} {stage.settings.partition(',')[0]}".strip()


@dataclass(frozen=True, slots=True)
class TemperatureTable(Widget):
    """The final distribution at a few temperatures side by side; at most `limit` candidates."""

    choice: Choice
    stages: Sequence[Stage]  # of the candidates' tokens
    limit: int = 1000

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        first = 3 + min(Columns.fitting(width).piece, 14)
        stages = self.stages[: max(1, (width - first) // (NUMBER + 1))]
        each = (width - first) // len(stages)
        gap, filled = min(2, each - NUMBER), each - NUMBER - 3
        heading = [cell("   token" if filled >= 8 else "   temperature", first, DIM)]
        for stage in stages:
            if filled >= 8:
                heading.append(cell(f"  temperature {stage.settings}", each, DIM))
            else:
                heading += [cell(stage.settings, gap + NUMBER, DIM, right=True), Segment(" " * (each - gap - NUMBER))]
        rows = [heading]
        for index in self.visible_indices():
            candidate = self.choice.candidates[index]
            is_chosen = candidate.token_id == self.choice.token_id
            row = name(candidate, is_chosen, first, glyphs)
            for stage in self.stages:
                prob = stage.probs[index]
                row += [
                    Segment("  "),
                    cell(percent(prob) if prob else "cut", NUMBER, PLAIN if prob else DIM, right=True),
                ]
                if filled >= 3:
                    row += [Segment(" "), cell(bar(prob, filled, glyphs), filled, CHOSEN if is_chosen else BAR)]
                else:
                    row.append(Segment(" " * (each - NUMBER - gap)))
            rows.append(row)
        return rows

    def visible_indices(self) -> list[int]:
        """Indices of the candidates that fit, the chosen one among them; none that is cut at every temperature."""
        indices = [
            index
            for index, candidate in enumerate(self.choice.candidates)
            if candidate.token_id == self.choice.token_id or any(stage.probs[index] for stage in self.stages)
        ]
        candidates = tuple(self.choice.candidates[index] for index in indices)
        return [
            indices[k]
            for k in CandidateTable(replace(self.choice, candidates=candidates), self.limit).visible_indices()
        ]


@dataclass(frozen=True, slots=True)
class DrawTable(Widget):
    """What the final distribution says, and how often each token came in more draws from it, from one axis."""

    choice: Choice
    counts: Mapping[int, int]  # by token id; of those that came
    limit: int = 1000

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        total = sum(self.counts.values())
        first = 3 + (22 if width >= 60 else 11)
        bars = max(0, (width - first - 2 * (NUMBER + 2) - 3) // 2)
        heading = [
            cell("   token", first, DIM),
            cell("final ", NUMBER + 3 + bars, DIM, right=True),
            Segment(glyphs.axis, DIM),
            cell(f" drawn again {plural(total, 'time')}", bars + NUMBER, DIM, glyphs=glyphs),
        ]
        rows = [heading]
        indices = CandidateTable(self.choice, self.limit).visible_indices()
        for index in indices:
            candidate = self.choice.candidates[index]
            is_chosen = candidate.token_id == self.choice.token_id
            count = self.counts.get(candidate.token_id, 0)
            label = name(candidate, is_chosen, first, glyphs)
            rows.append(
                self.row(label, candidate.prob or 0.0, count, total, bars, CHOSEN if is_chosen else BAR, glyphs)
            )
        shown = [self.choice.candidates[index] for index in indices]
        rest = max(0.0, 1.0 - sum(candidate.prob or 0.0 for candidate in shown))
        others = total - sum(self.counts.get(candidate.token_id, 0) for candidate in shown)
        if rest > 1e-9 or others:
            rows.append(self.row([cell("   all others", first, DIM)], rest, others, total, bars, DIM, glyphs))
        return rows

    @staticmethod
    def row(label: Row, prob: float, count: int, total: int, bars: int, fill: Style, glyphs: Glyphs) -> Row:
        came = count / total if total else 0.0
        number = cell(percent(prob), NUMBER, right=True) if prob else cell("cut", NUMBER, DIM, right=True)
        return [
            *label,
            Segment("  "),
            number,
            Segment(" "),
            cell(bar_leftwards(prob, bars, glyphs), bars, fill, right=True),
            Segment(glyphs.axis, DIM),
            Segment(bar(came, bars, glyphs), fill),
            Segment(f" {count:,}"),
        ]


def name(candidate: Candidate, is_chosen: bool, width: int, glyphs: Glyphs) -> Row:
    """A candidate's token, with a marker where it is the chosen one."""
    piece = visible_piece(candidate.piece, ascii_only=glyphs.ascii_only)
    marker = Segment(f" {glyphs.marker if is_chosen else ' '} ", CHOSEN + BOLD)
    return [marker, cell(piece, width - 3, CHOSEN + BOLD if is_chosen else PLAIN, glyphs=glyphs)]


@dataclass(frozen=True, slots=True)
class Unfolded:
    """The tables of one choice, in the rows there are: the stages and other temperatures, or more draws."""

    tables: tuple[StageTable, TemperatureTable] | DrawTable

    def rows(self, width: int, glyphs: Glyphs, room: int) -> list[Row]:
        return [crop(row, width, glyphs) for row in self._rows(width, glyphs, room)]

    def _rows(self, width: int, glyphs: Glyphs, room: int) -> list[Row]:
        if isinstance(self.tables, DrawTable):
            return replace(self.tables, limit=max(1, room - 2)).rows(width, glyphs)[:room]
        stages, temperatures = self.tables
        rows = stages.rows(width, glyphs)[:room]
        left = room - len(rows) - 1
        return rows if left < 2 else [*rows, *replace(temperatures, limit=left).rows(width, glyphs)]

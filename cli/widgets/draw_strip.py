"""The draw as a picture: the final distribution laid end to end, and where the uniform number fell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.widget import CHOSEN, DIM, Glyphs, Row, Widget, cell
from tokenglass.model.records.steps import Candidate, Choice

LEFT = 8  # cells of the label
MOST = 1.001  # that probabilities add up to


@dataclass(frozen=True, slots=True)
class Interval:
    """What one token owns of the numbers from 0 to 1; None for all tokens that are not shown."""

    candidate: Candidate | None
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class DrawStrip(Widget):
    """No rows where the draw was not reported, or where the order of the shown tokens does not explain it."""

    choice: Choice

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        draw, size = self.choice.draw, min(width - LEFT - 8, 100)
        if draw is None or size < 24 or not self.explains(draw):
            return []
        at = min(size - 1, int(draw * size))
        row = [cell(" draw", LEFT, DIM)]
        for stretch in stretches(self.choice):
            start, end = round(stretch.start * size), round(stretch.end * size)
            hit = stretch.start <= draw < stretch.end
            if end > start:
                mark = min(max(at - start, 0), end - start - 1) if hit else None
                row.append(Segment(draw_interval(stretch, end - start, mark, glyphs), CHOSEN if hit else DIM))
        return [[*row, Segment(glyphs.ends[1], DIM), Segment(f"  {draw:.2f}")]]

    def explains(self, draw: float) -> bool:
        """Whether the draw falls where the chosen token is, or must be, among probabilities that are any."""
        every = list(stretches(self.choice))
        place = next((stretch for stretch in every if stretch.start <= draw < stretch.end), None)
        if place is None or self.choice.rank is None or not all(0 < stretch.end < MOST for stretch in every):
            return False
        return place.candidate is None or place.candidate.token_id == self.choice.token_id


def stretches(choice: Choice) -> Iterator[Interval]:
    """In the sampler's order: by final probability, ties by token id. A token from beyond the first is in the rest."""
    beyond = choice.rank is not None and choice.rank > len(choice.candidates)
    if beyond and choice.is_constrained and choice.draw is not None:
        # Unless those before it are all there: then the draw falls where they leave it.
        placed = laid_out(choice.candidates)
        beyond = not any(
            each.start <= choice.draw < each.end
            and each.candidate is not None
            and each.candidate.token_id == choice.token_id
            for each in placed
        )
    return laid_out([each for each in choice.candidates if not (beyond and each.token_id == choice.token_id)])


def laid_out(candidates: Iterable[Candidate]) -> Iterator[Interval]:
    possible = [(-candidate.prob, candidate.token_id, candidate) for candidate in candidates if candidate.prob]
    start = 0.0
    for negative, _, candidate in sorted(possible, key=lambda entry: entry[:2]):
        yield Interval(candidate, start, start - negative)
        start -= negative
    if start < 1:
        yield Interval(None, start, 1.0)


def draw_interval(stretch: Interval, size: int, mark: int | None, glyphs: Glyphs) -> str:
    """One stretch: its border, the mark of the draw if it fell here, its token where there is room."""
    line = glyphs.ends[0] + glyphs.rule * (size - 1)
    if mark is not None:
        line = line[:mark] + glyphs.draw + line[mark + 1 :]
    name = "others"
    if stretch.candidate is not None:
        name = visible_piece(stretch.candidate.piece, ascii_only=glyphs.ascii_only)
    name = f" {name} "
    length = cell_len(name)
    for start, end in ((1, size if mark is None else mark), (size if mark is None else mark + 1, size)):
        if length <= end - start:
            return line[:start] + name + line[start + length :]
    return line

"""The exact split of logit(chosen) - logit(runner-up) over the parts of the model, as bars from a middle line."""

from __future__ import annotations

from dataclasses import dataclass

from rich.segment import Segment

from tokenglass.cli.widgets.flow_grid import AGAINST
from tokenglass.cli.widgets.prose import glossary, quote_token
from tokenglass.cli.widgets.widget import BAR, BOLD, DIM, PLAIN, Glyphs, Row, Widget, bar, cell
from tokenglass.model.inspection.records import Flow

NAME = 20


@dataclass(frozen=True, slots=True)
class FlowParts(Widget):
    """At most `limit` parts, the largest; what the others add together is a row too, so the rows sum to the total."""

    flow: Flow
    limit: int = 12
    explained: bool = True

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        parts = sorted(self.flow.components, key=lambda part: -abs(part.logit))
        shown = parts if len(parts) <= self.limit else parts[: max(0, self.limit - 1)]
        rest = parts[len(shown) :]
        terms = [(part.name, part.logit) for part in sorted(shown, key=self.flow.components.index)]
        if rest:
            terms.append((f"{len(rest)} others together", sum(part.logit for part in rest)))
        highest = max((abs(logit) for _, logit in terms), default=0.0)
        half = max(0, min((width - NAME - 12) // 2, 28))
        rows = [self.row(name, logit, highest, half, glyphs) for name, logit in terms]
        rows.append(
            [Segment(" "), cell("sum", NAME, BOLD), cell(f"{self.flow.sum_of_components:+.3f}", 9, BOLD, right=True)]
        )
        return rows + (self.words(width, glyphs) if self.explained else [])

    def row(self, name: str, logit: float, highest: float, half: int, glyphs: Glyphs) -> Row:
        row = [Segment(" "), cell(name, NAME, PLAIN, glyphs=glyphs), cell(f"{logit:+.3f}", 9, PLAIN, right=True)]
        if half < 3:
            return row
        size = abs(logit) / highest if highest else 0.0
        left = right = ""
        if logit < 0:  # whole cells: eighths fill from the left only
            left = glyphs.eighths[-1] * max(1, round(size * half))
        elif logit > 0:
            right = bar(size, half, glyphs)
        middle = "|" if glyphs.ascii_only else "│"
        return [*row, Segment(" "), cell(left, half, AGAINST, right=True), Segment(middle, DIM), Segment(right, BAR)]

    def words(self, width: int, glyphs: Glyphs) -> list[Row]:
        chosen, other = quote_token(self.flow.chosen.piece, glyphs), quote_token(self.flow.runner_up.piece, glyphs)
        before = " before the soft cap" if self.flow.capped else ""
        return glossary(
            {
                "sum": f"logit {chosen} - logit {other}{before} = {self.flow.difference:+.3f}.",
                "each row": "what that part added to the residual stream, seen through the final norm with its scale "
                "frozen. What it does by way of later parts is counted there.",
            },
            width,
        )

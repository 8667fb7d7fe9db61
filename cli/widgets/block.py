"""What one pass did to several positions: guesses accepted and rejected, masks revealed, entropies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.widget import BOLD, CHOSEN, DIM, PLAIN, Glyphs, Row, Widget, curve, label_fields, percent
from tokenglass.model.records.steps import Choice

STRUCK = Style(dim=True, strike=True)
MASK = "▒"
LABELS = {"denoise": "block", "jacobi": "guess", "verify": "verify", "draft": "draft"}


@dataclass(frozen=True, slots=True)
class BlockLines(Widget):
    """At most `limit` rows of tokens, each with its sign where colour cannot tell, and a row of what was found.

    `settled` are the choices of the same block from earlier passes.
    """

    phase: str
    choices: Sequence[Choice]
    settled: Sequence[Choice] = ()
    limit: int = 3

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        earlier = [choice for choice in self.settled if choice not in self.choices]
        places = sorted([*earlier, *self.choices], key=lambda choice: (choice.position, choice.status != "rejected"))
        fields = [self.field(choice, choice in self.choices, glyphs) for choice in places]
        rows = label_fields(LABELS.get(self.phase, self.phase), fields, width, glyphs, gap=1)[: self.limit]
        return (
            rows + label_fields("", [[Segment(self.summary(), DIM)], *self.entropy_columns(glyphs)], width, glyphs)[:1]
        )

    def field(self, choice: Choice, fresh: bool, glyphs: Glyphs) -> Row:
        if choice.token_id is None:
            return [Segment("?" if glyphs.ascii_only else MASK, DIM)]
        piece = visible_piece(choice.piece, ascii_only=glyphs.ascii_only)
        if choice.status == "rejected":
            return [Segment(f"-{piece}-" if glyphs.ascii_only else piece, STRUCK)]
        if choice.status == "guessed":
            return [Segment(piece, DIM)]
        if choice.status == "revealed" and fresh:
            return [Segment(piece, CHOSEN + BOLD), Segment(f" {percent(choice.prob, glyphs)}", DIM)]
        return [Segment(piece, CHOSEN + BOLD if fresh and choice.status in ("accepted", "sampled") else PLAIN)]

    def summary(self) -> str:
        """What this pass did, in words."""
        count = dict.fromkeys(("accepted", "rejected", "sampled", "revealed", "masked", "guessed"), 0)
        for choice in self.choices:
            if choice.status in count:
                count[choice.status] += 1
        if self.phase == "denoise":
            return f"{count['revealed']} revealed, {count['masked']} still masked"
        if self.phase == "draft":
            return f"{count['guessed']} guessed"
        more = f", {count['sampled']} by the sampler" if count["sampled"] else ""
        return f"{count['accepted']} accepted, {count['rejected']} rejected{more}"

    def entropy_columns(self, glyphs: Glyphs) -> list[Row]:
        """The entropy of each position as a column."""
        entropies = [choice.entropy for choice in self.choices if choice.entropy is not None]
        if self.phase != "denoise" or not entropies:
            return []
        return [[Segment("entropy ", DIM), Segment(curve(entropies, 32, glyphs), DIM)]]

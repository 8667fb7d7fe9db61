"""Several texts as they grow: a row each with its end in sight, those that were given up struck through."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import get_character_cell_size
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.wrapping import READABLE
from tokenglass.cli.text import plural
from tokenglass.cli.widgets.experts import SharedExperts
from tokenglass.cli.widgets.lines import PrefillBar, Rule, note
from tokenglass.cli.widgets.texts import State, Text, Texts
from tokenglass.cli.widgets.widget import BOLD, DIM, PLAIN, Glyphs, Row, Widget, cell, crop, label_fields, one_line

STYLES: dict[State, Style] = {"running": PLAIN, "ended": BOLD, "pruned": Style(dim=True, strike=True)}
SCORED = 60  # columns, from which on a beam's score has one of its own
LINES_FOR_EXPERTS = 7
TOKENS = 120  # whose text is looked at for the end of a row


@dataclass(frozen=True, slots=True)
class SeveralPanel(Widget):
    """At most `height` rows: running texts first, then those that ended, then those that were pruned last."""

    texts: Texts
    height: int
    keys: Widget | None = None
    behind: int = 0  # passes, of the newest one

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        if self.height < 1:
            return []
        width, run = min(width, READABLE), self.texts.run
        if not self.texts.new_tokens:
            done = self.texts.run_totals.totals.prefill_tokens
            return PrefillBar(done, run.prompt_length).rows(width, glyphs)[: self.height]
        above, below = [], []
        if self.height >= 5:
            above = Rule(self.title(), note(run.model, run.seed)).rows(width, glyphs)
            above += self.heading(width, glyphs) if self.height >= 9 else []
            below = self.cost(width, glyphs)[:1]
            if self.height >= LINES_FOR_EXPERTS:
                below = [*SharedExperts(self.texts.experts).rows(width, glyphs)[:1], *below]
        if self.height >= 7 and self.keys is not None:
            below += self.keys.rows(width, glyphs)
        room = self.height - len(above) - len(below)
        listed = self.listing()
        more = [] if len(listed) <= room or room < 3 else [self.more(len(listed) - room + 1, width, glyphs)]
        lanes = [self.lane(text, state, width, glyphs) for state, text in listed[: room - len(more)]]
        return [*above, *lanes, *more, *below]

    def listing(self) -> list[tuple[State, Text]]:
        """All samples; of a search as many of the ended and the pruned as there are beams."""
        search = self.texts.run.search
        most = search.beams if search.has_beams else None
        return [(state, text) for state, texts in self.texts.by_state().items() for text in texts[:most]]

    def title(self) -> str:
        run = self.texts.run
        kind = "beams" if run.search.has_beams else "samples"
        title = f"{self.texts.count} {kind}, token {self.texts.new_tokens:,} of {run.request.max_new_tokens:,}"
        return title + (f", {self.behind:,} {'pass' if self.behind == 1 else 'passes'} back" if self.behind else "")

    def cost(self, width: int, glyphs: Glyphs) -> list[Row]:
        totals = self.texts.run_totals.totals
        passes = f"{totals.forwards:,} {'pass' if totals.forwards == 1 else 'passes'}"
        fields = [passes, f"{plural(totals.positions_computed, 'position')} computed"]
        if totals.decode_seconds:
            fields.append(f"{(totals.forwards - 1) / totals.decode_seconds:,.1f} passes/s")
        return label_fields("cost", [[Segment(text)] for text in fields], width, glyphs)

    def heading(self, width: int, glyphs: Glyphs) -> list[Row]:
        """What is in which column: of a beam the raw sum, and what it is ranked by once it has ended."""
        has_beams = self.texts.run.search.has_beams
        row = [cell("beam" if has_beams else "no.", 7, DIM, right=True)]
        if width >= 40:
            row.append(cell("log prob", 10, DIM, right=True, glyphs=glyphs))
        if width >= SCORED and has_beams:
            row.append(cell("score", 10, DIM, right=True, glyphs=glyphs))
        if width >= 60:
            row.append(cell("  end", 12, DIM))
        return [crop([*row, Segment("  text", DIM)], width, glyphs)]

    @staticmethod
    def more(count: int, width: int, glyphs: Glyphs) -> Row:
        return crop([Segment(f"   and {count:,} more", DIM)], width, glyphs)

    def lane(self, text: Text, state: State, width: int, glyphs: Glyphs) -> Row:
        """A sign, the number, how probable, why it ended, and as much of the text's end as there is room for."""
        sign = {"running": glyphs.marker, "ended": "=" if glyphs.ascii_only else "■", "pruned": "x"}[state]
        finish, logprob = text.finish, text.logprob
        number = text.number if self.texts.run.search.has_beams else text.number + 1
        row = [Segment(f" {sign} ", STYLES[state]), cell(f"{number}", 4, DIM, right=True, glyphs=glyphs)]
        if width >= 40:
            row.append(cell(glyphs.none if logprob is None else f"{logprob:.2f}", 10, right=True, glyphs=glyphs))
        if width >= SCORED and self.texts.run.search.has_beams:
            score = "" if finish is None or finish.score is None else f"{finish.score:.4f}"
            row.append(cell(score, 10, right=True, glyphs=glyphs))
        if width >= 60:
            reason = finish.reason if finish is not None else "" if state == "running" else state
            row.append(cell(f"  {reason}", 12, DIM, glyphs=glyphs))
        row.append(Segment("  "))
        left = width - sum(segment.cell_length for segment in row)
        said = one_line(text.latest(self.texts.run.request.eos_token_ids, TOKENS), glyphs)
        row.append(Segment(tail(said, left, glyphs), STYLES["pruned"] if state == "pruned" else PLAIN))
        return crop(row, width, glyphs)


def tail(text: str, width: int, glyphs: Glyphs) -> str:
    """The last `width` cells of a text, begun with an ellipsis where that is not all."""
    used, start = 0, len(text)
    while start and (used := used + get_character_cell_size(text[start - 1])) <= width:
        start -= 1
    if not start:
        return text
    used = 0
    for start in range(len(text), 0, -1):
        used += get_character_cell_size(text[start - 1])
        if used > width - 1:
            return (glyphs.ellipsis if width > 0 else "") + text[start:]
    return text

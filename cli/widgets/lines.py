"""The single lines of the panel: the chosen token, a candidate's details, speed, prefill, the end."""

from __future__ import annotations

from dataclasses import dataclass

from rich.segment import Segment

from tokenglass.cli.run.summary import in_words
from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.text import plural
from tokenglass.cli.widgets.widget import (
    BAR,
    BOLD,
    CHOSEN,
    DIM,
    Glyphs,
    Row,
    Widget,
    crop,
    gauge,
    label_fields,
    one_line,
    percent,
    probability,
)
from tokenglass.model.records.bounds import Bounds
from tokenglass.model.records.steps import Candidate, Choice, Finish, Totals


@dataclass(frozen=True, slots=True)
class Rule(Widget):
    """A line across, with a title on the left and a note on the right where there is room."""

    title: str
    note: str = ""

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        title, note = one_line(self.title, glyphs), one_line(self.note, glyphs)
        left = [Segment(glyphs.rule, DIM), Segment(f" {title} ", BOLD)]
        right = [Segment(f" {note} ", DIM), Segment(glyphs.rule, DIM)] if note else []
        used = sum(segment.cell_length for segment in [*left, *right])
        if used + 3 > width:
            right, used = [], sum(segment.cell_length for segment in left)
        return [crop([*left, Segment(glyphs.rule * max(0, width - used), DIM), *right], width, glyphs)]


@dataclass(frozen=True, slots=True)
class ChosenLine(Widget):
    """The token that was chosen and its numbers; the draw only where no strip shows it."""

    choice: Choice
    greedy: bool = False
    draw: bool = True

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        choice = self.choice
        if choice.status == "forced":
            piece = visible_piece(choice.piece, ascii_only=glyphs.ascii_only)
            parts = [[Segment(piece, CHOSEN + BOLD)], [Segment("forced: the constraint leaves no other", DIM)]]
            return label_fields("chosen", parts, width, glyphs)
        raw = percent(probability(choice.logprob), glyphs)
        final = percent(choice.prob, glyphs)
        narrow = width < 60
        numbers = f"{raw} {glyphs.arrow} {final}" if narrow else f"raw {raw} {glyphs.arrow} final {final}"
        fields = [
            [Segment(visible_piece(choice.piece, ascii_only=glyphs.ascii_only), CHOSEN + BOLD)],
            [Segment(numbers)],
        ]
        fields += [[Segment(text)] for text in (self.rank(), self.entropy(narrow), self.draw_text()) if text]
        return label_fields("chosen", fields, width, glyphs, gap=2 if narrow else 3)

    def rank(self) -> str:
        return "rank not reported" if self.choice.rank is None else f"rank {self.choice.rank:,}"

    def entropy(self, narrow: bool) -> str:
        if self.choice.entropy is None:
            bounds = Bounds.of(self.choice)
            return "entropy not reported" if bounds is None else f"entropy {bounds.least_entropy:.1f} bits or more"
        return f"{self.choice.entropy:.1f} bits" if narrow else f"entropy {self.choice.entropy:.1f} bits"

    def draw_text(self) -> str:
        if not self.draw:
            return ""
        if self.choice.draw is not None:
            return f"draw {self.choice.draw:.2f}"
        return "no draw (greedy)" if self.greedy else "draw not reported"


@dataclass(frozen=True, slots=True)
class Details(Widget):
    """Everything about one candidate."""

    candidate: Candidate

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        candidate = self.candidate
        fate = f"cut by {candidate.removed_by}" if candidate.removed_by else f"final {percent(candidate.prob, glyphs)}"
        words = [
            visible_piece(candidate.piece, ascii_only=glyphs.ascii_only),
            f"token id {candidate.token_id}",
            f"bytes {candidate.piece.hex(' ')}",
            f"logprob {candidate.logprob:.3f}",
            f"raw {percent(probability(candidate.logprob))}",
            *(f"{name} {change:+.2f}" for name, change in candidate.moved),
            fate,
        ]
        return label_fields("look", [[Segment(word)] for word in words], width, glyphs, gap=2)


@dataclass(frozen=True, slots=True)
class SpeedLine(Widget):
    """Prefill and decode apart: they are different work."""

    totals: Totals

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        totals = self.totals
        fields = [
            rate("prefill", totals.prefill_tokens or totals.new_tokens, totals.prefill_rate),
            rate("decode", totals.decode_tokens, totals.decode_rate),
        ]
        return label_fields("speed", [[Segment(field)] for field in fields], width, glyphs)


def rate(name: str, tokens: int, per_second: float | None) -> str:
    if per_second is None:
        return f"{name} not reported" if tokens else f"{name} not begun"
    return f"{name} {plural(tokens, 'token')} at {per_second:,.{0 if per_second >= 10 else 1}f} tok/s"


@dataclass(frozen=True, slots=True)
class PrefillBar(Widget):
    """How much of the prompt the model has read. None: its length is not reported."""

    done: int
    total: int | None

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        if self.total is None:
            return label_fields("prefill", [[Segment("not reported")]], width, glyphs)
        share = min(1.0, self.done / self.total) if self.total else 0.0
        cells = max(4, min(40, width - 34))
        count = Segment(f"  {self.done:,} of {self.total:,}" + (" prompt tokens" if width >= 40 else ""))
        return label_fields("prefill", [[*gauge(share, cells, glyphs, BAR), count]], width, glyphs)


@dataclass(frozen=True, slots=True)
class EndLine(Widget):
    """Why the run ended, in plain words."""

    finish: Finish

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        words = in_words(self.finish).split(" ")  # a row ends between two of them
        fields = [[Segment(f"{self.finish.reason}:", DIM)], *([Segment(word, BOLD)] for word in words)]
        return label_fields("end", fields, width, glyphs, gap=1)


@dataclass(frozen=True, slots=True)
class Keys(Widget):
    """What the keys do while a run is shown, in one row: those that matter most come first."""

    space: str = "pause"
    speed: str = ""  # where it can be changed
    unfold: str = ""  # where what choices were made of is kept
    words: str = ""  # about the last key

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        arrows = "left right" if glyphs.ascii_only else "← →"
        words = {"space": self.space, "f": "to the end", arrows: "steps"}
        words |= {"u": self.unfold, "d": "draw 100"} if self.unfold else {}
        words["q"] = "stop"
        words |= {"+ -": self.speed} if self.speed else {"k j": "look"}
        words |= {"/ g": "find", "s t": "surprise, tie", "n": "again"}
        news = [[Segment(one_line(self.words, glyphs), BOLD)]] if self.words else []
        fields = news + [[Segment(key, BOLD), Segment(f" {word}", DIM)] for key, word in words.items()]
        return label_fields("keys", fields, width, glyphs, gap=2)[:1]


def note(model: str, seed: int) -> str:
    return f"{model}, seed {seed}"

"""What choosing by hand shows: numbered candidates, the numbers of the text so far, and what the keys do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.segment import Segment

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.candidates import CandidateTable, Columns, heading
from tokenglass.cli.widgets.widget import (
    BOLD,
    CHOSEN,
    DIM,
    Glyphs,
    Row,
    Widget,
    cell,
    crop,
    label_fields,
    percent,
    probability,
)
from tokenglass.model.records.steps import Choice

KEYS = (
    *(("1-0", "pick"), ("enter", "draw"), ("bksp", "back"), ("/", "type"), ("a", "run"), ("s", "save"), ("q", "quit")),
)
MORE = (("u", "undo"), ("b", "mark"), ("t", "tree"))
HELP = ("?", "keys")
EXPLAINED = (
    ("1-9 0", "pick a candidate; 0 is the tenth"),
    ("up down", "look; enter picks it"),
    ("enter", "draw; afresh after going back"),
    ("bksp left", "one token back"),
    ("right", "forward, as last gone"),
    ("u", "undo the last step, a run too"),
    ("/ or i", "type what comes next"),
    ("p", "edit the prompt"),
    ("a", "run on until any key"),
    ("b t", "mark a branch; see the tree"),
    ("s", "save the tree; --load takes it"),
    ("e", "export this branch to a file"),
    ("q", "quit"),
)


@dataclass(frozen=True, slots=True)
class NumberedCandidates(Widget):
    """At most `limit` rows of the candidates of `choice`; the one it holds is the way that was taken from here."""

    choice: Choice
    limit: int
    heading: bool = True
    together: bool = True
    highlighted: int | None = None

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        candidates = self.choice.candidates
        first = 0 if self.highlighted is None else max(0, self.highlighted - self.limit + 1)
        shown = range(first, min(len(candidates), first + self.limit))
        columns = Columns.fitting(width - 1)
        columns = replace(columns, rank=0, piece=columns.piece + columns.rank)
        table = CandidateTable(self.choice, highlighted=self.highlighted)
        rows: list[Row] = [[self.number(index, glyphs), *table.row(index, columns, glyphs)[1:]] for index in shown]
        if self.heading and columns.raw:
            rows.insert(0, [Segment(" "), *heading(columns, glyphs)])
        if self.together and shown:
            rows.append([Segment(" "), *table.sums([candidates[index] for index in shown], columns, glyphs)])
        return rows

    def number(self, index: int, glyphs: Glyphs) -> Segment:
        pointer = (">" if glyphs.ascii_only else "❯") if index == self.highlighted else " "
        taken = self.choice.candidates[index].token_id == self.choice.token_id
        digit = (index + 1) % 10 if index < 10 else " "
        return Segment(f"{pointer}{digit}{glyphs.marker if taken else ' '} ", BOLD)


@dataclass(frozen=True, slots=True)
class LastToken(Widget):
    """The token before the cursor: how it came, and how probable it was."""

    choice: Choice | None

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        choice = self.choice
        if choice is None:
            return label_fields("last", [[Segment("the prompt ends here", DIM)]], width, glyphs)[:1]
        raw = percent(probability(choice.logprob), glyphs)
        taken = next((other for other in choice.candidates if other.token_id == choice.token_id), None)
        final = percent(choice.prob, glyphs)
        if taken is not None and taken.removed_by is not None:
            final = f"cut by {taken.removed_by}"
        words = [f"{raw} {glyphs.arrow} {final}"]
        if choice.status == "forced":
            words.append("by hand")
        else:
            words.append("greedy" if choice.draw is None else f"draw {choice.draw:.2f}")
        words += [] if choice.rank is None else [f"rank {choice.rank:,}"]
        piece = [Segment(visible_piece(choice.piece, ascii_only=glyphs.ascii_only), CHOSEN + BOLD)]
        return label_fields("last", [piece, *([Segment(word)] for word in words)], width, glyphs, gap=2)[:1]


@dataclass(frozen=True, slots=True)
class TextNumbers(Widget):
    """The whole text's log-probability, and how many branches there are."""

    tokens: int
    logprob: float
    per_token: float | None
    branches: int
    marked: bool

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        words = [f"{self.tokens:,} new"]
        words += [] if self.per_token is None else [f"logprob {self.logprob:.2f}", f"{self.per_token:.2f} a token"]
        words += [] if not self.branches else [f"branches {self.branches:,}"]
        words += ["marked"] if self.marked else []
        return label_fields("text", [[Segment(word)] for word in words], width, glyphs, gap=2)[:1]


@dataclass(frozen=True, slots=True)
class KeyLine(Widget):
    """Keys and what they do in one line; where there is no room, `more` lose their words, and then the first.

    What explains them all keeps its word as long as it can.
    """

    keys: Sequence[tuple[str, str]]
    more: Sequence[tuple[str, str]] = ()
    help: Sequence[tuple[str, str]] = ()

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        order = [*self.more, *self.keys, *self.help]
        for bare in range(len(order) + 1):
            silent = order[: max(bare, len(self.more) if bare else 0)]
            row: Row = []
            for key, word in (*self.keys, *self.more, *self.help):
                has_word = (key, word) not in silent
                gap = "  " if row and (has_word or row[-1].text) else " "
                row += [Segment(gap + key, BOLD), Segment(f" {word}" if has_word else "", DIM)]
            if sum(segment.cell_length for segment in row) <= width:
                break
        return [crop(row, width, glyphs)]


@dataclass(frozen=True, slots=True)
class KeyTable(Widget):
    """Every key in a line of its own."""

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        return [crop([cell(f" {key}", 11, BOLD), Segment(words)], width, glyphs) for key, words in EXPLAINED]

"""Answers beside each other: bars, their tokens, and where the best two part."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.prose import prose
from tokenglass.cli.widgets.widget import (
    BAR,
    BOLD,
    CHOSEN,
    DIM,
    PLAIN,
    Glyphs,
    Row,
    Widget,
    cell,
    gauge,
    label_fields,
    one_line,
    percent,
)
from tokenglass.model.measuring.choosing import Answer, Choosing

MOST = 40  # cells of a bar
NUMBER = 7  # cells of a share in per cent


@dataclass(frozen=True, slots=True)
class AnswerBars(Widget):
    """The share of each answer, the best first, and what of all texts is none of them."""

    choosing: Choosing
    by_mean: bool

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        ranked = self.choosing.ranking(self.by_mean)
        names = [one_line(answer.text.strip() or repr(answer.text), glyphs) for answer in ranked]
        label = min(max(map(cell_len, names)), max(8, width // 3))
        cells = min(MOST, width - label - NUMBER - 5)
        rows = []
        for answer, name in zip(ranked, names, strict=True):
            share = answer.mean_prob if self.by_mean else answer.prob
            style = CHOSEN if answer is ranked[0] else PLAIN
            row = [Segment(" "), cell(name, label, style, glyphs=glyphs), Segment("  ")]
            row.append(cell(percent(share, glyphs), NUMBER, style, right=True))
            if cells >= 4:
                row += [Segment("  "), *gauge(share, cells, glyphs, CHOSEN if answer is ranked[0] else BAR)]
            rows.append(row)
        return [*rows, *self.outside(width, glyphs)]

    def outside(self, width: int, glyphs: Glyphs) -> list[Row]:
        choosing = self.choosing
        words = [f"of all texts, {percent(1 - choosing.outside, glyphs)} begin with one of these"]
        if choosing.orders > 1:
            words.append(f"means over {choosing.orders} orders")
        if any(answer.prior_logprob is not None for answer in choosing.answers):
            words.append("what an empty prompt gives is divided out")
        if self.by_mean:
            words.append("by the mean of a token")
        return prose(["; ".join(words)], width, DIM)


@dataclass(frozen=True, slots=True)
class AnswerTokens(Widget):
    """The tokens of each answer, each with its probability behind those before it."""

    choosing: Choosing
    by_mean: bool

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        rows: list[Row] = []
        ranked = self.choosing.ranking(self.by_mean)
        for answer in ranked:
            shared = self.choosing.parting(ranked[0], answer) if answer is not ranked[0] else 0
            fields = [
                [
                    Segment(visible_piece(token.piece, ascii_only=glyphs.ascii_only), DIM if place < shared else BOLD),
                    Segment(f" {percent(math.exp(token.logprob), glyphs)}", DIM),
                ]
                for place, token in enumerate(answer.tokens)
            ]
            joint = [Segment(percent(math.exp(answer.logprob), glyphs).rjust(NUMBER)), Segment(" =", DIM)]
            rows += label_fields("joint" if answer is ranked[0] else "", [joint, *fields], width, glyphs, gap=2)
        return rows


@dataclass(frozen=True, slots=True)
class FirstDifference(Widget):
    """Where the best two answers go different ways."""

    choosing: Choosing
    by_mean: bool

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        best, second = self.choosing.ranking(self.by_mean)[:2]
        place = self.choosing.parting(best, second)
        ways = [self.way(answer, place, glyphs) for answer in (best, second)]
        at = (
            f"the best two differ from token {place + 1} on" if place else "the best two differ from the first token on"
        )
        return [[], *prose([f"{at}: {ways[0]} against {ways[1]}"], width, DIM)]

    def way(self, answer: Answer, place: int, glyphs: Glyphs) -> str:
        if place == len(answer.tokens):
            return "its end"
        token = answer.tokens[place]
        piece = visible_piece(token.piece, ascii_only=glyphs.ascii_only)
        return f"{piece} {percent(math.exp(token.logprob), glyphs)}"

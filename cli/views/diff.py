"""What diff and replay --rescore print: sums, the tokens that differ most in their context, or JSON of all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from tokenglass.cli.say import write, write_json
from tokenglass.cli.terminal.console import ColorWhen, make_console
from tokenglass.cli.terminal.terminal import is_terminal, visible_piece
from tokenglass.cli.widgets.widget import percent, probability
from tokenglass.model.measuring.difference import Difference, Summary, top_of, worst
from tokenglass.model.records.codec import to_dict
from tokenglass.model.records.steps import Choice

BEFORE, BEHIND = 6, 20  # tokens shown before one that differs, and of each text from where they part
COLUMNS = ("at", "bits", "moved", "token", "first", "second", "rank", "top of first", "top of second", "after")


@dataclass(frozen=True, slots=True)
class Diff:
    """Two columns by name, the whole text of each, and what differs. `is_final`: probabilities are those that tokens
    are drawn with, else raw."""

    names: tuple[str, str]
    texts: tuple[Sequence[Choice], Sequence[Choice]]
    differences: Sequence[Difference]
    is_final: bool = False

    @property
    def summary(self) -> Summary:
        return Summary.of(self.differences)


def show(diff: Diff, *, count: int, as_json: bool, color: ColorWhen) -> None:
    """Sums and the `count` tokens that diverge most; all of them as JSON."""
    if as_json:
        write_json(as_facts(diff), indent=2)
        return
    for line in words(diff):
        write(line)
    rows = [cells(each, diff) for each in worst(diff.differences, count) if each.divergence or each.moved]
    if not rows:
        return
    if not is_terminal(sys.stdout):
        for row in (COLUMNS, *rows):
            write("\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("token", "after") or "top" in column else "right")
    for row in rows:
        table.add_row(*row)
    make_console(sys.stdout, color=color).print(table)


def words(diff: Diff) -> list[str]:
    """The sums in lines."""
    sums, (first, second) = diff.summary, diff.names
    lines = [f"first   {first}", f"second  {second}"]
    lines.append(f"{sums.tokens:,} {'token' if sums.tokens == 1 else 'tokens'}, {', '.join(distances(diff))}")
    if diff.is_final:
        impossible = [sum(choice.prob == 0 for choice in choices) for choices in diff.texts]
        return [*lines, f"tokens of the text that cannot be drawn: {impossible[0]:,} and {impossible[1]:,}"]
    if sums.first_bits is not None and sums.second_bits is not None:
        lines.append(
            f"the text takes {sums.first_bits:.4f} bits a token in the first, {sums.second_bits:.4f} in the second"
        )
    flips = f"{sums.flips:,} with another top token"
    flips += "" if sums.first_flip is None else f", the first at {sums.first_flip:,}"
    lines.append(f"{flips}; {sums.rank_changes:,} with another rank")
    if sums.parting is not None:
        for name, text in zip(("first", "second"), diff.texts, strict=True):
            behind = [choice.piece for choice in text if choice.position >= sums.parting][:BEHIND]
            lines.append(f"from {sums.parting:,} on the {name} has {visible_piece(b''.join(behind))}")
    elif len(diff.texts[0]) != len(diff.texts[1]):
        lines.append(f"one ends first: {len(diff.texts[0]):,} and {len(diff.texts[1]):,} tokens")
    return lines


def distances(diff: Diff) -> list[str]:
    """How far the two are apart, as means over the tokens."""
    sums = diff.summary
    infinite = sum(each.divergence is None for each in diff.differences) if diff.is_final else 0
    moved = [] if sums.moved is None else [f"{percent(sums.moved)} of the probability on other tokens"]
    if infinite:
        return [*moved, f"divergence infinite at {infinite:,}, where the second cannot draw what the first may"]
    if sums.divergence is None:
        return ["divergence not reported"]
    least = "" if sums.is_exact else "at least "
    return [f"divergence {least}{sums.divergence:.4f} bits a token", *moved]


def cells(each: Difference, diff: Diff) -> tuple[str, ...]:
    before = [choice.piece for choice in diff.texts[0] if each.position - BEFORE <= choice.position < each.position]
    choices = (each.first, each.second)
    ranks = ["-" if choice.rank is None else f"{choice.rank:,}" for choice in choices]
    tops = [top_of(choice) for choice in choices]
    return (
        f"{each.position:,}",
        ("inf" if diff.is_final else "-") if each.divergence is None else f"{each.divergence:.4f}",
        "-" if each.moved is None else percent(each.moved),
        visible_piece(each.first.piece),
        *(percent(choice.prob if diff.is_final else probability(choice.logprob)) for choice in choices),
        f"{ranks[0]} → {ranks[1]}",
        *("-" if top is None else visible_piece(top.piece) for top in tops),
        visible_piece(b"".join(before)),
    )


def as_facts(diff: Diff) -> dict[str, Any]:
    tokens = [
        {
            "position": each.position,
            "divergence": each.divergence,
            "moved": each.moved,
            "is_exact": each.is_exact,
            "is_flip": each.is_flip,
            "rank_change": each.rank_change,
            "first": to_dict(each.first),
            "second": to_dict(each.second),
        }
        for each in diff.differences
    ]
    return {"first": diff.names[0], "second": diff.names[1], "summary": asdict(diff.summary), "tokens": tokens}

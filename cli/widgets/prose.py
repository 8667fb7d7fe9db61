"""Sentences that say what numbers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.widgets.widget import BOLD, DIM, PLAIN, Glyphs, Row

HELD = "\u00a0"  # a space where no line ends; in a token it would be spelt out


def prose(sentences: Sequence[str], width: int, style: Style = PLAIN) -> list[Row]:
    """Sentences one after the other, folded at words."""
    return [[Segment(" "), Segment(line, style)] for line in fold(" ".join(sentences), width - 2)]


def glossary(entries: Mapping[str, str], width: int) -> list[Row]:
    """Words and what they mean, each beginning a line of its own."""
    rows: list[Row] = []
    for word, meaning in entries.items():
        first, *further = fold(f"{word}  {meaning}", width - 4)
        rows.append([Segment(" "), Segment(first[: len(word)], BOLD), Segment(first[len(word) :], DIM)])
        rows += [[Segment("   "), Segment(line, DIM)] for line in further]
    return rows


def fold(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, if the words let them; a number and its sign of per cent stay together."""
    lines: list[str] = [""]
    for word in text.replace(" %", f"{HELD}%").split(" "):
        wider = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cell_len(wider) > width:
            lines.append(word)
        else:
            lines[-1] = wider
    return [line.replace(HELD, " ") for line in lines]


def quote_token(piece: bytes, glyphs: Glyphs) -> str:
    """A token in a sentence, in quotation marks."""
    text = visible_piece(piece, ascii_only=glyphs.ascii_only)
    return text if glyphs.ascii_only else f"“{text}”"

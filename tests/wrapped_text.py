"""How text lies on a terminal, without the product's code: lines that a terminal breaks, and lines broken at words."""

from __future__ import annotations

import textwrap

from rich.cells import get_character_cell_size


def wrap(text: str, columns: int) -> list[str]:
    """The lines that a terminal makes of a text."""
    lines = []
    for paragraph in text.split("\n"):
        line, used = "", 0
        for char in paragraph:
            cells = get_character_cell_size(char)
            if used + cells > columns:
                lines.append(line.rstrip())
                line, used = "", 0
            line, used = line + char, used + cells
        lines.append(line.rstrip())
    return lines


def laid_out(text: str, columns: int) -> list[str]:
    """The lines of a text whose last paragraph is open: its words are not cut, as `textwrap` has it, and the last four
    columns stay free where there is room."""
    *ended, last = text.split("\n")
    room = columns - 4 if columns >= 48 else columns
    words = textwrap.wrap(last, min(room, 100), break_on_hyphens=False) or [""]
    return [*(wrap("\n".join(ended), columns) if ended else []), *words]

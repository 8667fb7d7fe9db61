"""Where text ends on a terminal of some width: the arithmetic of wrapping, apart from any terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.terminal.terminal import visible

TAB = 8


def advance(column: int, text: str, width: int) -> int:
    """The column after `text`, begun in `column`; `width` itself means that the next character will wrap."""
    _, newline, line = text.rpartition("\n")
    if newline:
        column = 0
    if line.isascii() and "\t" not in line:
        column += len(line)
        return column if column <= width else (column - 1) % width + 1
    for char in line:
        if char == "\t":
            column = max(column, min(width - 1, (column // TAB + 1) * TAB))
            continue
        cells = get_character_cell_size(char)
        column = cells if column + cells > width else column + cells
    return column


def hold_back(segments: Sequence[Segment], columns: Iterable[int], width: int) -> tuple[list[Segment], list[Segment]]:
    """Cut off the fewest last characters that leave the text short of the right edge, wherever it began.

    At the edge a terminal waits with the wrap, and moving the cursor makes it forget that.
    """
    kept, held = list(segments), list[Segment]()
    while kept and (ends_at_edge(kept, columns, width) or (held and is_zero_wide(held[0].text[0]))):
        text, style = kept[-1].text, kept[-1].style
        cut = len(text) - 1
        while cut > 0 and is_zero_wide(text[cut]):
            cut -= 1
        held.insert(0, Segment(text[cut:], style))
        kept[-1:] = [Segment(text[:cut], style)] if cut > 0 else []
    return kept, held


def ends_at_edge(segments: Iterable[Segment], columns: Iterable[int], width: int) -> bool:
    text = "".join(segment.text for segment in segments)
    return any(advance(column, text, width) == width for column in columns)


def is_zero_wide(char: str) -> bool:
    return get_character_cell_size(char) == 0 and char not in "\n\t"


def render(segment: Segment, system: ColorSystem | None, *, no_color: bool) -> str:
    """A segment with its escape codes, and no others."""
    style, text = segment.style or Style.null(), visible(segment.text)
    if system is None:
        return text
    return (style.without_color if no_color else style).render(text, color_system=system)

"""What a console prints as a picture, which fetches nothing."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from tokenglass.cli.terminal.console import VisibleConsole

THEME = TerminalTheme(
    (24, 26, 31),
    (214, 217, 224),
    [(24, 26, 31), (224, 108, 117), (126, 190, 120), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
     (214, 217, 224)],
)  # fmt: skip


def drawing_console(width: int) -> Console:
    """A console of so many columns, whatever the environment says, that remembers what it prints."""
    return VisibleConsole(
        file=io.StringIO(), record=True, width=width, color_system="truecolor", force_terminal=True,
        legacy_windows=False, markup=False, highlight=False, emoji=False, _environ={},
    )  # fmt: skip


def svg_of(console: Console, *, title: str, unique_id: str) -> str:
    """What it printed as SVG; the same prints always give the same picture."""
    picture = console.export_svg(title=title, theme=THEME, unique_id=unique_id)
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # Rich's fonts would come from the net

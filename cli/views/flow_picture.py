"""A flow as a picture: what the command prints, as SVG."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from tokenglass.cli.widgets.flow_page import FlowPage
from tokenglass.model.inspection.records import Flow

WIDTH = 100  # columns
THEME = TerminalTheme(
    (24, 26, 31),
    (214, 217, 224),
    [(24, 26, 31), (224, 108, 117), (126, 190, 120), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
     (214, 217, 224)],
)  # fmt: skip


def flow_picture(flow: Flow, *, limit: int = 12) -> str:
    """The same flow always gives the same SVG; it fetches nothing."""
    console = Console(
        file=io.StringIO(), record=True, width=WIDTH, color_system="truecolor", force_terminal=True,
        legacy_windows=False, markup=False, highlight=False, emoji=False, _environ={},
    )  # fmt: skip
    console.print(FlowPage(flow, "color", limit))
    picture = console.export_svg(title="tokenglass flow", theme=THEME, unique_id="flow")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # Rich's fonts would come from the net

"""A flow as a picture: what the command prints, as SVG."""

from __future__ import annotations

from tokenglass.cli.export.svg import drawing_console, svg_of
from tokenglass.cli.widgets.flow_page import FlowPage
from tokenglass.model.inspection.records import Flow

WIDTH = 100  # columns


def flow_picture(flow: Flow, *, limit: int = 12) -> str:
    """The same flow always gives the same SVG; it fetches nothing."""
    console = drawing_console(WIDTH)
    console.print(FlowPage(flow, "color", limit))
    return svg_of(console, title="tokenglass flow", unique_id="flow")

"""Facts by name, one below the other."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table


def facts_table(facts: Iterable[tuple[str, str]]) -> Table:
    """A row for each: its name, and what is said of it on as many lines as it takes."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    return table

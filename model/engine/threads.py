"""How many threads compute."""

from __future__ import annotations

from tokenglass.model.engine.processors import usable_processors


def count_threads(count: int | None = None) -> int:
    """`count`, at most four for each processor; None: the processors that this process may keep busy."""
    usable = usable_processors()
    return usable if count is None else min(count, 4 * usable)

"""How many threads compute."""

from __future__ import annotations

import os

from tokenglass.model.engine.processors import usable_cores, usable_processors

VARIABLE = "OMP_NUM_THREADS"  # by which programs that compute are told elsewhere too


def count_threads(count: int | None = None) -> int:
    """`count`, at most four for each processor; None: what OMP_NUM_THREADS says, or else one for each core."""
    if count is not None:
        return min(count, 4 * usable_processors())
    named = os.environ.get(VARIABLE, "").partition(",")[0].strip()  # of nested teams the first number is ours
    cores = usable_cores()
    wanted = int(named[:9]) if named.isdecimal() else 0
    return min(wanted, cores) if wanted else cores

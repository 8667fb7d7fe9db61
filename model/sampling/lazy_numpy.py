"""numpy's names, loaded at their first use (PEP 562).

The command line reads the samplers' options long before one of them computes, and numpy takes half of that start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import *  # noqa: F403  (so that the type checker knows them)


def __getattr__(name: str) -> Any:
    import numpy  # noqa: ICN001, PLC0415  (the reason for this module)

    value = globals()[name] = getattr(numpy, name)
    return value

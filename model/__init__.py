"""Everything that generates; it knows no terminal.

from tokenglass.model import generate, load

for record in generate(load("tale"), "Once upon a time", seed=1):
    print(record.text, end="")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenglass.model.api import generate, load

__all__ = ["generate", "load"]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: a part of this package alone must not load all of it (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tokenglass.model import api  # noqa: PLC0415  (only when it is asked for)

    return getattr(api, name)

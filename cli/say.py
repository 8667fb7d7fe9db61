"""What is not the generated text: on stderr."""

from __future__ import annotations

import contextlib
import sys


def say(message: str) -> None:
    """A line on stderr, if there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(message, file=sys.stderr, flush=True)

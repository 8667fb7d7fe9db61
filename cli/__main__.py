"""The two console scripts, and `python -m tokenglass.cli`."""

from __future__ import annotations

import gc
import sys

INTERRUPTED = 130
ALLOCATIONS = 200_000  # between two collections: what a start makes stays, so that looking through it finds nothing


def tokenglass() -> None:
    """All commands."""
    gc.set_threshold(ALLOCATIONS)
    try:
        from tokenglass.cli.app import run, tokenglass_app

        app = tokenglass_app(*sys.argv[1:2])
    except KeyboardInterrupt:  # while the program itself is read
        sys.exit(INTERRUPTED)
    run(app, "tokenglass")


def generate() -> None:
    """The same as `tokenglass generate`."""
    gc.set_threshold(ALLOCATIONS)
    try:
        from tokenglass.cli.app import generate_app, run

        app = generate_app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run(app, "generate")


if __name__ == "__main__":
    tokenglass()

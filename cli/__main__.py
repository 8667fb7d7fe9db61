"""The two console scripts, and `python -m tokenglass.cli`."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def tokenglass() -> None:
    """All commands."""
    try:
        from tokenglass.cli.app import run, tokenglass_app

        app = tokenglass_app()
    except KeyboardInterrupt:  # while the program itself is read
        sys.exit(INTERRUPTED)
    run(app, "tokenglass")


def generate() -> None:
    """The same as `tokenglass generate`."""
    try:
        from tokenglass.cli.app import generate_app, run

        app = generate_app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run(app, "generate")


if __name__ == "__main__":
    tokenglass()

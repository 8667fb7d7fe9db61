"""The two console scripts, and `python -m cli`."""

from __future__ import annotations

from cli.app import generate_app, run, tokenglass_app


def tokenglass() -> None:
    """All commands."""
    run(tokenglass_app(), "tokenglass")


def generate() -> None:
    """The same as `tokenglass generate`."""
    run(generate_app(), "generate")


if __name__ == "__main__":
    tokenglass()

"""Numbers in words."""

from __future__ import annotations


def plural(number: int, thing: str) -> str:
    """1 token, 2 tokens."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def nbytes(size: float) -> str:
    """Bytes in binary units: 57.0 KiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def count(number: float) -> str:
    """A large count, shortened: 5.6M."""
    for unit in ("", "K", "M"):
        if number < 1000:
            return f"{number:.0f}" if not unit else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f}B"

"""What the kernels are compiled from."""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent / "c"
LEVELS = FOLDER / "levels.txt"


def sources() -> list[Path]:
    """Every file that the compiler reads here, and its options for each level."""
    return sorted(path for path in FOLDER.iterdir() if path.suffix in (".c", ".h") or path == LEVELS)


def sources_key() -> str:
    """Changes with any of the sources; CMakeLists.txt computes the same."""
    digests = (hashlib.sha256(path.read_bytes()).hexdigest() for path in sources())
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:32]

"""The levels of processors that kernels are compiled for, and the installed library for this processor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import tokenglass
from tokenglass.model.native_engine.folder import is_intact
from tokenglass.model.native_engine.sources import LEVELS, sources_key

BESIDE = Path(__file__).parent / "kernels"  # where CMakeLists.txt puts them
INSTALLED = "model/native_engine/kernels"  # the same in a package installed in place: its sources are another folder


@dataclass(frozen=True, slots=True)
class Level:
    name: str
    options: tuple[str, ...]  # of the compiler
    needs: frozenset[str]  # flags of the processor


def read_levels(architecture: str, table: Path = LEVELS) -> list[Level]:
    """The levels of an architecture, from the lowest up."""
    levels: list[Level] = []
    for line in table.read_text().splitlines():
        fields = [field.strip() for field in line.split("|")]
        if fields[0] == architecture.replace("arm64", "aarch64"):
            below = levels[-1].needs if levels else frozenset()
            levels.append(Level(fields[1], tuple(fields[2].split()), below | {*fields[3].split()}))
    return levels


def usable_levels(levels: Sequence[Level], flags: Set[str]) -> list[Level]:
    """Those whose needs a processor with these flags meets, from the highest down."""
    return [level for level in reversed(levels) if level.needs <= flags]


def installed_library(levels: Iterable[Level], folders: Sequence[Path] | None = None) -> Path | None:
    """The library of the first of these levels that is installed; None where there is none, or that one is damaged
    or was compiled from other sources."""
    if folders is None:
        folders = [BESIDE] if BESIDE.is_dir() else [Path(root) / INSTALLED for root in tokenglass.__path__]
    for level in levels:
        libraries = [library for folder in folders for library in folder.glob(f"{level.name}.*.so")]
        if libraries:
            key = f"{level.name}.{sources_key()}"
            return next((library for library in libraries if is_intact(library, key)), None)
    return None

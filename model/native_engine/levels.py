"""The levels of processors that kernels are compiled for, and the installed library for this processor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import tokenglass
from tokenglass.model.native_engine.folder import is_intact
from tokenglass.model.native_engine.sources import LEVELS, sources_key

ROOT = Path(__file__).parents[2]  # of the package
INSTALLED = "model/native_engine/kernels"  # where CMakeLists.txt puts them in it


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
            needs_of = {level.name: level.needs for level in levels}
            needs = (needs_of.get(need, frozenset({need})) for need in fields[3].split())
            levels.append(Level(fields[1], tuple(fields[2].split()), frozenset().union(*needs)))
    return levels


def usable_levels(levels: Sequence[Level], flags: Set[str]) -> list[Level]:
    """Those whose needs a processor with these flags meets, from the highest down."""
    return [level for level in reversed(levels) if level.needs <= flags]


def installed_library(levels: Iterable[Level], folders: Sequence[Path] | None = None) -> Path | None:
    """The library of the first of these levels that is installed; None where there is none, or that one is damaged
    or was compiled from other sources."""
    for level in levels:
        libraries = [
            library
            for folder in (kernel_folders() if folders is None else folders)
            for library in folder.glob(f"{level.name}.*.so")
        ]
        if libraries:
            key = f"{level.name}.{sources_key()}"
            return next((library for library in libraries if is_intact(library, key)), None)
    return None


def kernel_folders() -> list[Path]:
    """Where compiled kernels may lie: beside the sources; of a checkout that is installed in place, in site-packages,
    which is another folder of the same package."""
    if not (ROOT / "pyproject.toml").is_file():
        return [ROOT / INSTALLED]
    return [Path(root) / INSTALLED for root in tokenglass.__path__]

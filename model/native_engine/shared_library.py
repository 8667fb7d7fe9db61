"""The kernels in this process: those that were installed, or else compiled for this machine. No torch here."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence, Set
from contextlib import suppress
from pathlib import Path

from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine.facts import check_facts
from tokenglass.model.native_engine.levels import Level, installed_library, read_levels, usable_levels
from tokenglass.model.native_engine.processor import describe_processor, processor_flags

MARCH = "TOKENGLASS_MARCH"  # the name of a level, or of a processor as the compiler knows it


def load_library() -> ctypes.CDLL:
    """The kernels for this processor: those that were installed, or else compiled. Raises KernelsError."""
    library = installed_library(choose_levels(os.environ.get(MARCH), processor_flags(describe_processor())))
    if library is not None:
        with suppress(KernelsError):  # of a system whose C library is newer
            return open_library(library)
    return load_compiled()


def load_compiled(folder: Path | None = None, extra: Sequence[str] = ()) -> ctypes.CDLL:
    """The kernels compiled for this processor, with `extra` options of the compiler, and kept in `folder` (None: the
    user's cache). Raises KernelsError."""
    from tokenglass.model.native_engine.build import compile_library  # noqa: PLC0415  (installed kernels need none)

    processor = describe_processor()
    options = compiler_options(os.environ.get(MARCH), processor)
    return open_library(compile_library(folder, (*options, *extra), processor))


def open_library(library: Path) -> ctypes.CDLL:
    """The library in this process. Raises KernelsError where it does not fit this system or this program."""
    try:
        opened = ctypes.CDLL(str(library))
    except OSError as error:
        raise KernelsError(f"the compiled kernels cannot be used ({error})") from None
    check_facts(opened)
    return opened


def choose_levels(name: str | None, flags: Set[str]) -> list[Level]:
    """The levels whose libraries this processor can run, the best first; the named one alone where there is a name.

    Raises KernelsError where the processor lacks something that the named level needs.
    """
    levels = read_levels(platform.machine())
    if not name:
        return usable_levels(levels, flags)
    named = [level for level in levels if level.name == name]
    for level in named:
        if flags and not level.needs <= flags:
            raise KernelsError(f"{MARCH} names {name}, and this processor has no {min(level.needs - flags)}")
    return named


def compiler_options(name: str | None, processor: str) -> tuple[str, ...]:
    """The compiler's options for a level or a processor by its name; None for this processor.

    What the system does not describe has no options: the library may be carried to another machine, in a shared home.
    """
    for level in read_levels(platform.machine()):
        if level.name == name:
            return level.options
    if not name and not processor:
        return ()
    return (f"{'-mcpu' if platform.machine() in ('arm64', 'aarch64') else '-march'}={name or 'native'}",)

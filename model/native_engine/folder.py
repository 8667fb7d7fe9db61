"""Compiled libraries in a folder of the user's own. Each name tells what a library was compiled from, and the hash of
its bytes: one that a full disk or a crash left damaged is not loaded, which would end the process, but compiled again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tokenglass.model.errors import KernelsError
from tokenglass.model.files import open_regular

MAX_LIBRARY = 2**26  # bytes
UNFINISHED = ".part"  # the end of a name while a compiler writes
HOUR = 3600  # seconds; nobody writes to a file for longer
MONTH = 30 * 24 * HOUR  # a library that was not loaded for so long is of an older version, or another machine


def own_folder(folder: Path) -> Path:
    """The folder, made where it is missing, if nobody else can write to it. Raises KernelsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError as error:
        raise KernelsError(f"{folder} cannot be made ({error.strerror})") from None
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KernelsError(f"{folder} can be written by others; remove it")
    return folder


def intact_library(folder: Path, key: str) -> Path | None:
    """The library of this key that holds what its name says; damaged ones are removed. Raises KernelsError."""
    for library in sorted(folder.glob(f"{key}.*.so")):
        with suppress(OSError):
            if library.stat().st_uid != os.getuid():
                raise KernelsError(f"{library} belongs to someone else")
        if is_intact(library, key):
            with suppress(OSError):
                os.utime(library)  # the day of its last use
            return library
        with suppress(OSError):
            library.unlink()
    return None


def new_library(folder: Path) -> Path:
    """An empty file for a compiler to write, to be put in its place by `keep_library`. Raises OSError."""
    remove_older(folder, f"*{UNFINISHED}", HOUR)  # of a process that was killed
    remove_older(folder, "*.so", MONTH)
    handle, name = tempfile.mkstemp(dir=folder, suffix=UNFINISHED)
    os.close(handle)
    return Path(name)


def remove_older(folder: Path, pattern: str, seconds: float) -> None:
    """Remove the files of a pattern that were not touched for so long."""
    for file in folder.glob(pattern):
        with suppress(OSError):
            if file.stat().st_mtime < time.time() - seconds:
                file.unlink()


def keep_library(compiled: Path, key: str) -> Path:
    """Give a library its name, once it is on the disk. Raises OSError."""
    sync(compiled)
    library = compiled.replace(compiled.with_name(f"{key}.{hash_library(compiled)}.so"))
    sync(library.parent)
    return library


def is_intact(library: Path, key: str) -> bool:
    """Whether a library is what its name says."""
    return library.name == f"{key}.{hash_library(library)}.so"


def hash_library(library: Path) -> str | None:
    """The hash of a file's bytes; None where it cannot be a library."""
    try:
        with open_regular(library) as opened:
            if os.fstat(opened.fileno()).st_size > MAX_LIBRARY:
                return None
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return None


def sync(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

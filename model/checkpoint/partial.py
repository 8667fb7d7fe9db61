"""Long work on files: how far it is, and that it leaves all or nothing, whoever else does the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenglass.model.checkpoint.store import PARTIAL
from tokenglass.model.errors import MadeMeanwhile, StoreError

try:
    import fcntl
except ImportError:  # Windows has none; there two processes must not make the same folder
    fcntl = None  # type: ignore[assignment]  # a module, where there is one


@contextmanager
def complete_or_nothing(folder: Path, job: str = "") -> Iterator[Path]:
    """A folder to fill, which becomes `folder` in one step when the block ends well, and vanishes when it does not.

    What a killed process left is cleared. Of several that do the same `job`, one works and the others wait.
    Raises StoreError where something is there already, MadeMeanwhile where it came while this one waited.
    """
    refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(folder.parent)
    identity = hashlib.sha256(f"{folder.name}\n{job}".encode("utf-8", "surrogateescape")).hexdigest()[:8]
    partial = folder.with_name(f".{folder.name[:40]}-{identity}{PARTIAL}")
    with lock_folder(partial) as waited:
        if waited and folder.is_dir() and any(folder.iterdir()):
            partial.rmdir()
            raise MadeMeanwhile(f"{folder}: another process has just made it")
        clear(partial)
        try:
            yield partial
            write_through(partial)
            refuse_existing(folder)
            if folder.exists():
                folder.rmdir()  # it is empty
            partial.rename(folder)  # on the same disk, so never half done
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StoreError(f"{folder}: is already there; name another folder or remove it first")


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Hold a folder, made where there is none, against other processes. Gives whether one of them was waited for.

    The lock is the system's own: it ends with the process, however that ends.
    """
    waited = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with open_folder(folder) as descriptor:
            if not lock(descriptor, wait=False):
                waited = True
                lock(descriptor, wait=True)
            if is_still(folder, descriptor):  # the one before has not renamed or removed it
                yield waited
                return


def clear_abandoned(parent: Path) -> None:
    """Remove the unfinished folders that no process holds any more."""
    for folder in parent.glob(f".*{PARTIAL}"):
        with contextlib.suppress(OSError):
            if folder.is_dir() and not folder.is_symlink():
                with open_folder(folder) as descriptor:
                    if lock(descriptor, wait=False) and is_still(folder, descriptor):
                        shutil.rmtree(folder)


def clear(folder: Path) -> None:
    """Empty a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_through(folder: Path) -> None:
    """Have the system write every file to the disk, so that a power cut leaves no folder that only looks complete."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """A descriptor of a folder; -1 where folders cannot be locked."""
    if fcntl is None:
        yield -1
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open folder or file. False where another process holds it; a file system without locks has no others."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_still(folder: Path, descriptor: int) -> bool:
    """Whether an open folder is still the one of this name."""
    try:
        return descriptor < 0 or os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

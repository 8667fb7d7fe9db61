"""Long work on files: how far it is, and that it leaves all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from model.errors import StoreError


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is, in bytes."""

    doing: str
    done: int
    total: int


@contextmanager
def complete_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` in one step when the block ends well, and vanishes when it does not.

    Raises StoreError where something is there already.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StoreError(f"{folder}: is already there; name another folder or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True) as temporary:
        partial = Path(temporary) / folder.name
        partial.mkdir()
        yield partial
        if folder.exists():
            folder.rmdir()  # it was empty
        partial.rename(folder)  # on the same disk, so never half done

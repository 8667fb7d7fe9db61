"""The checkpoint folder for what a user calls a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tokenglass.cli.terminal.opening import NO_OPENING, Opening


def model_folder(name: str | None, opening: Opening = NO_OPENING) -> Path:
    """Resolve a name; a GGUF file is imported to the user's cache first, once as long as it does not change."""
    from tokenglass.model.checkpoint.store import resolve
    from tokenglass.model.errors import ParameterError
    from tokenglass.model.sources.server.address import is_address

    if is_address(name):
        raise ParameterError(
            "-m: a server is no model of this machine, which is what is needed here; name a folder or a model"
        )
    path = resolve(name)
    return import_once(path, opening) if path.suffix.lower() == ".gguf" and path.is_file() else path


def chat_model() -> str:
    """The folder of a model with a chat template that was pulled or imported; those of the catalog go first.

    Raises StoreError where there is none.
    """
    from tokenglass.model.checkpoint.store import imports_folder, kept_folders, models_folder
    from tokenglass.model.errors import StoreError
    from tokenglass.model.importers.catalog import read_catalog
    from tokenglass.model.text.chat import has_template

    folders = kept_folders(imports_folder()) | kept_folders(models_folder())
    catalog = read_catalog()
    for name in (*(name for name in catalog if name in folders), *folders):
        if has_template(folders[name]):
            return str(folders[name])
    raise StoreError(
        f"no chat model is here yet; `tokenglass pull {next(iter(catalog))}` gets one, or name one with -m"
    )


def import_once(path: Path, opening: Opening) -> Path:
    """The folder that a GGUF file was imported to, now or before."""
    from tokenglass.cli.progress import watch_store
    from tokenglass.cli.say import say
    from tokenglass.model.checkpoint.store import imports_folder
    from tokenglass.model.errors import StoreError

    stat = path.stat()
    identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    stem = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in path.stem)
    folder = (
        imports_folder() / f"{stem[:60].lstrip('._-') or 'model'}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    )
    if not folder.is_dir():
        from tokenglass.model.importers.gguf import import_gguf

        try:
            watch_store(import_gguf(path, folder), opening)
        except StoreError:
            if not folder.is_dir():  # else another process has made it, just before this one began
                raise
        say(f"imported {path.name} to {folder}; `tokenglass models rm {folder.name}` removes it")
    return folder

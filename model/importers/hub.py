"""A checkpoint fetched from the Hugging Face Hub: safetensors, JSON and template files, nothing that is a program."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.partial import clear, lock_folder
from tokenglass.model.checkpoint.shards import INDEX, SINGLE
from tokenglass.model.checkpoint.small_files import is_read
from tokenglass.model.checkpoint.store import Origin, sha256_of, size_of, write_origin
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import StoreError, first_line
from tokenglass.model.files import MAX_INDEX, MAX_TOKENIZER, read_json

WEIGHTS = re.compile(r"[\w.-]+\.safetensors")


def pull_hub(name: str, folder: Path, revision: str | None = None) -> None:
    """Fetch ORG/NAME; `folder` is there once it is complete. An interrupted pull goes on where it stopped.

    The library draws its own progress on a terminal. Raises StoreError, and ConfigError for a model that cannot be
    run, before its weights are fetched.
    """
    hub = library()
    try:
        info = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
        partial = folder.parent.parent / ".pulling" / f"{name.replace('/', '--')}-{info.sha}"
        with lock_folder(partial):
            if folder.is_dir():  # another pull has ended meanwhile
                clear(partial)
                partial.rmdir()
                return
            fetch_all(hub, name, info, partial)
            Checkpoint.open(partial)
            write_origin(partial, Origin(f"Hugging Face Hub: {name}", licence_of(info), str(info.sha)))
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial.rename(folder)
    except Exception as error:  # the library and its HTTP client have many, which change with their versions
        if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore", "huggingface_hub")):
            raise StoreError(explain(hub, name, revision, error)) from None
        raise


def fetch_all(hub: Any, name: str, info: Any, folder: Path) -> None:
    """The small files, and when the model is one that can be run, its weights. Raises StoreError, ConfigError."""
    listed = {file.rfilename: file for file in info.siblings or ()}
    sizes = {name: int(file.size or 0) for name, file in listed.items()}
    check_listing(name, sizes)
    for file in small_files(sizes):
        fetch(hub, name, listed[file], info.sha, folder)
    ModelConfig.from_file(folder / "config.json")
    weights = weight_files(sizes, read_json(folder / INDEX, MAX_INDEX) if INDEX in sizes else None)
    check_disk(folder, sum(sizes[file] for file in weights) - size_of(folder))
    for file in weights:
        fetch(hub, name, listed[file], info.sha, folder)


def library() -> Any:
    """huggingface_hub, its warnings off. Raises StoreError where it is not installed."""
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        raise StoreError('pulling ORG/NAME needs the extra "hub"; pip install "tokenglass[hub]"') from None
    hub.logging.set_verbosity_error()
    return hub


def fetch(hub: Any, name: str, listed: Any, commit: str, folder: Path) -> None:
    """One file, as the listing describes it. What is there is kept, what is there in part is continued.

    The library's own download of a file starts afresh in every process, so only its HTTP part is used.
    Raises StoreError where the content is not what the Hub says it is.
    """
    target = folder / listed.rfilename
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = folder / f"{listed.rfilename}.part"
    if part.exists() and part.stat().st_size > listed.size:
        part.unlink()
    with part.open("ab") as out:
        importlib.import_module("huggingface_hub.file_download").http_get(
            hub.hf_hub_url(name, listed.rfilename, revision=commit),
            out,
            resume_size=out.tell(),
            headers=hub.utils.build_hf_headers(),
            expected_size=listed.size,
            displayed_filename=listed.rfilename,
        )
    if listed.lfs is not None and sha256_of(part) != listed.lfs.sha256:
        part.unlink()
        raise StoreError(f"{name}: {listed.rfilename} arrived damaged; pull again")
    part.rename(target)


def check_listing(name: str, sizes: Mapping[str, int]) -> None:
    """Raises StoreError where the repository holds no model of ours."""
    missing = [file for file in ("config.json", "tokenizer.json") if file not in sizes]
    if missing:
        adapter = "; it is an adapter (LoRA), not a whole model" if "adapter_config.json" in sizes else ""
        raise StoreError(f"{name} has no {' and no '.join(missing)}{adapter}")
    large = [file for file in small_files(sizes) if sizes[file] > MAX_TOKENIZER]
    if large:
        raise StoreError(f"{name}: {large[0]} has {sizes[large[0]]:,} bytes, refused")


def small_files(sizes: Mapping[str, int]) -> list[str]:
    return sorted(file for file in sizes if is_read(file))


def weight_files(sizes: Mapping[str, int], index: Mapping[str, Any] | None) -> list[str]:
    """The weight files that belong together: the single one, else those of the index. Raises StoreError."""
    files = [SINGLE]
    if index is not None and SINGLE not in sizes:
        weight_map = index.get("weight_map")
        names = weight_map.values() if isinstance(weight_map, dict) else ()
        files = sorted({file for file in names if isinstance(file, str) and WEIGHTS.fullmatch(file)})
    absent = [file for file in files if file not in sizes]
    if absent or not files:
        other = next((file for file in sizes if Path(file).suffix in (".bin", ".gguf", ".pth")), None)
        raise StoreError(
            f"the repository has no {absent[0] if absent else SINGLE}"
            + (f" (it has {other[:80]!r}, which is not fetched)" if other else "")
        )
    return files


def check_disk(folder: Path, nbytes: int) -> None:
    """Raises StoreError where the disk has no room."""
    there = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(there).free
    if nbytes > free:
        raise StoreError(f"the weights take {nbytes:,} bytes and the disk of {there} has {free:,}; make room first")


def licence_of(info: Any) -> str:
    """The licence that the model's card names."""
    licence = (info.card_data or {}).get("license")
    return licence if isinstance(licence, str) else ""


def explain(hub: Any, name: str, revision: str | None, error: Exception) -> str:
    """One line for a failure of the library's."""
    errors = hub.errors
    address = importlib.import_module("huggingface_hub.constants").ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return f"{name} is gated; accept its terms at {address}/{name}, then `hf auth login` and pull again"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the Hub has no model {name}, or it is private; check the name, or `hf auth login` first"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{name} is not here and HF_HUB_OFFLINE forbids to fetch it"
    if isinstance(error, errors.HfHubHTTPError):
        return f"{name} could not be fetched; the Hub says: {first_line(error):.200}"
    return f"{name} could not be fetched; the Hub cannot be reached ({first_line(error):.200}); pull again to go on"

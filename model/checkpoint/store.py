"""Where models are found by name, and where pulled and imported ones are kept. No torch here.

A name means, in this order: a path that exists; the bundled model; a pulled model; a model in Hugging Face's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenglass.model.errors import ConfigError, StoreError, did_you_mean
from tokenglass.model.files import MAX_CONFIG, expand_home, open_regular, read_json, read_text
from tokenglass.weights import FOLDER as WEIGHTS

BUNDLED = "tale"
ORIGIN = "tokenglass.json"  # in the folder of a kept model: where it came from
PARTIAL = ".tokenglass-partial"  # ends the name of a hidden folder that is being made or removed
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
HUB_NAME = re.compile(rf"{NAME.pattern}/{NAME.pattern}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a kept model came from; "" is not known."""

    source: str
    licence: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A model on this machine."""

    name: str
    folder: Path
    nbytes: int
    origin: Origin


def bundled_folder() -> Path:
    """The model that comes with the program."""
    return WEIGHTS / BUNDLED


def name_of(folder: Path) -> str:
    """What a model's folder is called: its own name, or ORG/NAME in Hugging Face's cache."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def models_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where pulled models are kept: $TOKENGLASS_HOME/models, else the user's data directory."""
    return _home(environ, "data") / "models"


def imports_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where GGUF files that were named with -m are imported to: $TOKENGLASS_HOME/imports, else the user's cache."""
    return _home(environ, "cache") / "imports"


def resolve(name: str | None) -> Path:
    """The folder (or GGUF file) for a model's name, the bundled model for None. Raises StoreError.

    What cannot be a name is taken for a path, and whoever opens it says what is wrong with it.
    """
    if name is None:
        return bundled_folder()
    if not name:
        raise StoreError("the model's name is empty; give a folder, a GGUF file, or a name of `tokenglass models`")
    path = Path(name)
    if path.exists():
        return path
    if name == BUNDLED:
        return bundled_folder()
    if not is_name(name):
        return path
    pulled = models_folder() / name
    if pulled.is_dir():
        return pulled
    cached = hub_cache_folder(name)
    if cached is not None:
        return cached
    raise StoreError(
        f"no model {name!r}: not a path, not pulled, not in Hugging Face's cache"
        + (
            did_you_mean(name, names_here())
            or f"; `tokenglass models` lists what there is, `tokenglass pull {name}` may fetch it"
        )
    )


def names_here() -> list[str]:
    """The names of the bundled model and of those in the store; no file of theirs is read."""
    return [BUNDLED, *(name for folder in (models_folder(), imports_folder()) for name in kept_folders(folder))]


def is_name(name: str) -> bool:
    """Whether a model could be kept under this name: NAME or ORG/NAME."""
    return bool(NAME.fullmatch(name) or HUB_NAME.fullmatch(name))


def hub_cache_folder(name: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The newest snapshot of ORG/NAME in Hugging Face's cache, if there is one.

    Layout: huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    if not HUB_NAME.fullmatch(name):
        return None
    home = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    repository = expand_home(environ.get("HF_HUB_CACHE") or str(home / "hub")) / f"models--{name.replace('/', '--')}"
    try:
        commit = read_text(repository / "refs" / "main", MAX_CONFIG).strip()
    except ConfigError:
        return None
    snapshot = repository / "snapshots" / Path(commit).name
    return snapshot if snapshot.is_dir() else None


def kept_models(folder: Path) -> list[Kept]:
    """The models under a folder of the store, by name."""
    return [Kept(name, model, size_of(model), read_origin(model)) for name, model in kept_folders(folder).items()]


def kept_folders(folder: Path) -> dict[str, Path]:
    """The folder of each model under one of the store, by name."""
    marks = sorted((*folder.glob(f"*/{ORIGIN}"), *folder.glob(f"*/*/{ORIGIN}")))
    return {name: mark.parent for mark in marks if is_name(name := mark.parent.relative_to(folder).as_posix())}


def remove(name: str) -> Kept:
    """Remove a pulled or imported model; what was removed. Raises StoreError."""
    if name == BUNDLED:
        raise StoreError(f"{BUNDLED} comes with the program and cannot be removed")
    models = [model for folder in (models_folder(), imports_folder()) for model in kept_models(folder)]
    model = next((model for model in models if model.name == name), None)
    if model is None:
        names = ", ".join(model.name for model in models) or "none"
        raise StoreError(f"no pulled model {name!r}; there is: {names}")
    away = model.folder.with_name(f".{model.folder.name}-removed{PARTIAL}")  # in one step it is no model any more
    shutil.rmtree(away, ignore_errors=True)
    model.folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)  # what a kill leaves is cleared with other unfinished folders
    return model


def write_origin(folder: Path, origin: Origin) -> None:
    (folder / ORIGIN).write_text(json.dumps(asdict(origin), indent=2) + "\n", encoding="utf-8")


def read_origin(folder: Path) -> Origin:
    """What `write_origin` wrote; fields that are not text count as not known."""
    try:
        content = read_json(folder / ORIGIN)
    except ConfigError:
        content = {}
    fields = {key: value for key in ("source", "licence", "revision") if isinstance(value := content.get(key), str)}
    return Origin(**{"source": "", **fields})


def size_of(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def sha256_of(path: Path) -> str:
    with open_regular(path) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _home(environ: Mapping[str, str], kind: str) -> Path:
    if environ.get("TOKENGLASS_HOME"):
        return expand_home(environ["TOKENGLASS_HOME"])
    import platformdirs  # only who keeps models needs it

    folder = platformdirs.user_data_path if kind == "data" else platformdirs.user_cache_path
    return folder("tokenglass", appauthor=False)

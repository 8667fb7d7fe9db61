"""The models that are known by name, from weights/catalog.toml. No torch here."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tokenglass.weights import FOLDER as WEIGHTS

CATALOG = WEIGHTS / "catalog.toml"
HUB = "hub"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model inside a Python package. Sizes are in bytes."""

    name: str
    title: str
    about: str
    licence: str
    chat: bool  # it has a chat template
    author: str
    package: str  # as pip takes it: name==version
    sha256: str  # of the wheel
    size: int  # of the wheel
    disk: int  # of the checkpoint once imported
    member: str  # the GGUF file in the wheel
    member_sha256: str
    member_size: int


@dataclass(frozen=True, slots=True)
class HubEntry:
    """A model of the Hugging Face Hub."""

    name: str  # ORG/NAME
    about: str
    licence: str
    chat: bool
    gated: bool  # it needs an account that has accepted its terms


def read_catalog(path: Path = CATALOG) -> dict[str, CatalogEntry]:
    """The models inside Python packages, by name."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: CatalogEntry(name=name, **fields) for name, fields in content.items() if name != HUB}


def read_hub_catalog(path: Path = CATALOG) -> dict[str, HubEntry]:
    """Those of the Hub."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: HubEntry(name=name, **fields) for name, fields in content[HUB].items()}

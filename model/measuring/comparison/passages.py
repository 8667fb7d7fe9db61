"""The fixed prompts of a comparison, each with a true continuation."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Literal

from tokenglass.weights import FOLDER as WEIGHTS

Collection = Literal["stories", "speech", "repetition"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A text in two parts; the second begins with what divides them."""

    prompt: str
    continuation: str


def read_passages(name: Collection) -> tuple[Passage, ...]:
    """The passages of that name that come with the program."""
    path = WEIGHTS / "prompts" / f"{name}.toml"
    return tuple(Passage(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["passage"])

"""What a logits processor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import ClassVar

from tokenglass.model.sampling.scores import Scores


class Processor(ABC):
    """A setting that changes scores; subclasses are frozen dataclasses."""

    __slots__ = ()
    name: ClassVar[str]

    @abstractmethod
    def __call__(self, scores: Scores) -> None:
        """Change the scores in place; they remember what was done."""

    @property
    def settings(self) -> str:
        """The values it works with, as text."""
        named = [(field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self)]  # type: ignore[arg-type]
        return ", ".join(f"{value}" if number == 0 else f"{name} {value}" for number, (name, value) in enumerate(named))

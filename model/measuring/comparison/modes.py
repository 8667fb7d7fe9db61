"""The modes that are compared: each with certain settings, under a name that tells them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.modes import MODES, ModeSettings, decode_job
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.records.steps import Record

NAMES = tuple(f"{mode.name}{ending}" for mode in MODES.values() for ending in mode.variants or ("",))
PASSES = re.compile(r"parallel-([1-9]\d{0,3})")


@dataclass(frozen=True, slots=True)
class Variant:
    """A mode with its settings, on a model."""

    name: str
    settings: ModeSettings
    loaded: LoadedModel
    draft: LoadedModel | None = None  # a smaller model with the same tokenizer

    @property
    def lossless(self) -> bool:
        return MODES[self.settings.name].is_lossless

    @property
    def drafts_elsewhere(self) -> bool:
        """Whether its draft steps are passes of another model."""
        return self.settings.draft == "model"

    def begin(self, request: Request) -> Iterator[Record]:
        """The records of a text. Raises TokenglassError for what this checkpoint cannot do."""
        draft = self.draft if self.drafts_elsewhere else None
        return decode_job(Job.of(self.loaded, request, draft=draft), self.settings)


@dataclass(frozen=True, slots=True)
class Variants:
    """Those of one model."""

    loaded: LoadedModel
    draft: LoadedModel | None = None
    block_size: int = 16
    draft_length: int = 8

    def find(self, name: str) -> Variant:
        """The one of that name; what this checkpoint cannot do is refused when it begins. Raises ParameterError."""
        for mode in MODES.values():
            for ending, settings in (mode.variants or {"": {}}).items():
                if name == f"{mode.name}{ending}":
                    return self._variant(name, mode.name, settings)
        if passes := PASSES.fullmatch(name):
            return self._variant(name, "parallel", {"passes": int(passes[1])})
        raise ParameterError(f"no mode is called {name!r}; there are {', '.join(NAMES)}, and parallel-N for any N")

    def _variant(self, name: str, mode: str, settings: Mapping[str, Any]) -> Variant:
        lengths = {"block_size": self.block_size, "draft_length": self.draft_length}
        return Variant(name, ModeSettings(mode, **{**lengths, **settings}), self.loaded, self.draft)

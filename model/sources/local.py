"""Records that a model in this process decodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.modes import ModeSettings, decode_job
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.records.steps import Record
from tokenglass.model.runs.run import Search
from tokenglass.model.sampling.sampler import Keep

if TYPE_CHECKING:
    from tokenglass.model.decoding.beam_search import BeamParameters


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A loaded model and the way that it decodes; over that cache, and with that model's guesses, where one is given.

    `keep` is called with what each choice was made of.
    """

    loaded: LoadedModel
    mode: ModeSettings = field(default_factory=ModeSettings)
    search: Search = field(default_factory=Search)
    cache: KVCache | None = None
    draft: LoadedModel | None = None
    keep: Keep | None = None

    def records(self, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        """Raises ParameterError, PromptError, EngineError."""
        job = replace(Job.of(self.loaded, request, interrupt, self.cache, self.draft), keep=self.keep)
        if self.search.has_beams:
            from tokenglass.model.decoding.beams import decode_beams

            return decode_beams(job, beam_parameters(self.search))
        if self.search.is_several:
            from tokenglass.model.decoding.samples import decode_samples

            return decode_samples(job, self.search.num_samples)
        return decode_job(job, self.mode)


def beam_parameters(search: Search) -> BeamParameters:
    """Raises ParameterError."""
    from tokenglass.model.decoding.beam_search import BeamParameters

    return BeamParameters(search.beams, search.length_penalty, search.early_stopping)

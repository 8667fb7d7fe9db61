"""What every way of decoding is given."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tokenglass.model.decoding.guidance import room
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request, check_length
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Engine
from tokenglass.model.errors import ParameterError
from tokenglass.model.sampling.sampler import Keep
from tokenglass.model.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenglass.model.loaded_model import LoadedModel


@dataclass(frozen=True, slots=True)
class Job:
    """A request, and what carries it out.

    A `cache` is continued from what its row has in common with the prompt (chat keeps it between turns). `mask_id` is
    the checkpoint's mask token, `draft_engine` a smaller model with the same tokenizer, where there are such; `keep` is
    called with what each choice was made of.
    """

    engine: Engine
    tokenizer: Tokenizer
    request: Request
    interrupt: Interrupt = field(default_factory=threading.Event)
    cache: KVCache | None = None
    mask_id: int | None = None
    draft_engine: Engine | None = None
    keep: Keep | None = None

    @staticmethod
    def of(
        loaded: LoadedModel,
        request: Request,
        interrupt: Interrupt | None = None,
        cache: KVCache | None = None,
        draft: LoadedModel | None = None,
    ) -> Job:
        """The job of a loaded model. Raises ParameterError for a draft model with another tokenizer."""
        if draft is not None and draft.tokenizer_fingerprint != loaded.tokenizer_fingerprint:
            raise ParameterError(f"{draft.name} has another tokenizer than {loaded.name}; its guesses cannot be read")
        return Job(
            loaded.engine,
            loaded.tokenizer,
            request,
            interrupt or threading.Event(),
            cache,
            loaded.checkpoint.config.mask_token_id,
            None if draft is None else draft.engine,
        )

    @property
    def planned_length(self) -> int:
        """Positions that the text may reach."""
        return self.request.planned_length(self.engine.limit)

    def with_cache(self) -> Job:
        """The same with a cache, a new one where none is given; without one where the request wants none."""
        if self.cache is not None or not self.request.use_cache:
            return self
        return replace(self, cache=self.engine.new_cache(planned_length=self.planned_length))

    def new_sequence(self) -> Sequence:
        """The text before its first new token. Raises PromptError where the prompt leaves no room for one."""
        engine, request = self.engine, self.request
        check_length(request.prompt_ids, engine.limit)
        limit = room(engine, request)
        return Sequence(
            self.tokenizer, request, limit, vocab_size=engine.vocab_size, measure=engine.measure, keep=self.keep
        )

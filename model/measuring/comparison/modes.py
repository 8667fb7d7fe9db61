"""The ways of decoding by name."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.drafts import Drafter, ModelDrafter, NgramDrafter, ParallelDrafter
from tokenglass.model.decoding.parallel import decode_parallel
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.reveal import ParallelParameters
from tokenglass.model.decoding.speculative import decode_jacobi, decode_speculative
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.errors import ParameterError
from tokenglass.model.loading import LoadedModel
from tokenglass.model.records.steps import Record

AUTOREGRESSIVE = "autoregressive"
MODES = (
    AUTOREGRESSIVE,
    *(f"parallel-{passes}" for passes in (1, 2, 4, 8)),
    *("parallel-threshold", "parallel-entropy"),
    *("speculative-ngram", "speculative-parallel", "speculative-model"),
    "jacobi",
)
PASSES = re.compile(r"parallel-([1-9]\d{0,3})")
Begin = Callable[[Request], Iterator[Record]]


@dataclass(frozen=True, slots=True)
class Mode:
    """A way of decoding, ready to run. A `lossless` one promises the autoregressive text."""

    name: str
    begin: Begin
    lossless: bool = False
    drafts_elsewhere: bool = False  # its draft steps are passes of another model


@dataclass(frozen=True, slots=True)
class Modes:
    """Makes the modes of one model."""

    loaded: LoadedModel
    draft: LoadedModel | None = None  # a smaller model with the same tokenizer
    block_size: int = 16
    draft_length: int = 8
    threshold: float = 0.9
    entropy_bound: float = 0.1

    def named(self, name: str) -> Mode:
        """The mode of that name; what this checkpoint cannot do is refused when it begins. Raises ParameterError."""
        passes = PASSES.fullmatch(name)
        if passes:
            return Mode(name, self._parallel(passes=int(passes[1])))
        by_name = {mode.name: mode for mode in self._others()}
        if name not in by_name:
            raise ParameterError(f"no mode is called {name!r}; there are {', '.join(MODES)}, and parallel-N for any N")
        return by_name[name]

    def _others(self) -> tuple[Mode, ...]:
        return (
            Mode(AUTOREGRESSIVE, self._autoregressive),
            Mode("parallel-threshold", self._parallel(threshold=self.threshold)),
            Mode("parallel-entropy", self._parallel(entropy_bound=self.entropy_bound)),
            Mode("speculative-ngram", self._speculative(lambda _, __: NgramDrafter()), lossless=True),
            Mode("speculative-parallel", self._speculative(self._parallel_drafter), lossless=True),
            Mode("speculative-model", self._speculative(self._model_drafter), lossless=True, drafts_elsewhere=True),
            Mode("jacobi", self._jacobi, lossless=True),
        )

    def _autoregressive(self, request: Request) -> Iterator[Record]:
        return decode(self.loaded.engine, self.loaded.tokenizer, request, threading.Event())

    def _parallel(self, **rule: Any) -> Begin:
        parameters = ParallelParameters(block_size=self.block_size, **rule)
        mask_id = self.loaded.checkpoint.config.mask_token_id

        def begin(request: Request) -> Iterator[Record]:
            engine, tokenizer = self.loaded.engine, self.loaded.tokenizer
            return decode_parallel(engine, tokenizer, request, threading.Event(), parameters, mask_id)

        return begin

    def _speculative(self, drafter: Callable[[Request, KVCache], Drafter]) -> Begin:
        def begin(request: Request) -> Iterator[Record]:
            engine, tokenizer, cache = self.loaded.engine, self.loaded.tokenizer, self._cache(request)
            guesses, count = drafter(request, cache), self.draft_length
            return decode_speculative(engine, tokenizer, request, threading.Event(), cache, guesses, count)

        return begin

    def _jacobi(self, request: Request) -> Iterator[Record]:
        engine, tokenizer, cache = self.loaded.engine, self.loaded.tokenizer, self._cache(request)
        return decode_jacobi(engine, tokenizer, request, threading.Event(), cache, self.block_size)

    def _cache(self, request: Request) -> KVCache:
        return self.loaded.engine.new_cache(planned_length=request.planned_length(self.loaded.engine.limit))

    def _parallel_drafter(self, _: Request, cache: KVCache) -> Drafter:
        return ParallelDrafter(self.loaded.engine, cache, self.loaded.checkpoint.config.mask_token_id)

    def _model_drafter(self, request: Request, _: KVCache) -> Drafter:
        if self.draft is None:
            raise ParameterError("it needs a smaller model with the same tokenizer: --draft-model MODEL")
        if self.draft.tokenizer_fingerprint != self.loaded.tokenizer_fingerprint:
            raise ParameterError(f"{self.draft.name} has another tokenizer than {self.loaded.name}")
        return ModelDrafter(self.draft.engine, len(request.prompt_ids), self.loaded.engine.vocab_size)

"""The flow of the steps of a running decode, for those steps that somebody looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from tokenglass.model.decoding.ending import end_always
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.inspection.reading import Reading, check_keeps_positions, flow_rows
from tokenglass.model.native_engine.engine import NativeEngine
from tokenglass.model.records.steps import Finish, Record, Step, Totals
from tokenglass.model.torch_engine.engine import TorchEngine, build_transformer, check_whole
from tokenglass.model.torch_engine.transformer import Transformer


def modules_of(engine: TorchEngine | NativeEngine) -> Transformer:
    """The weights as torch modules, to look into. Raises ParameterError where other processes hold parts of them, and
    where layers keep no positions."""
    check_keeps_positions(engine.model.config if isinstance(engine, TorchEngine) else engine.config)
    if isinstance(engine, NativeEngine):
        return build_transformer(engine.config, engine.weights)
    check_whole(engine)
    return engine.model


def reading_of(engine: TorchEngine | NativeEngine, token_ids: Sequence[int], piece: Callable[[int], bytes]) -> Reading:
    """The text as the engine's model reads it. Raises PromptError."""
    if not isinstance(engine, TorchEngine):
        model = modules_of(engine)
        engine = TorchEngine(model, torch.device("cpu"), next(model.parameters()).dtype)
    return Reading(engine, token_ids, piece)


class Explainer:
    """Follows the records of a run over `cache`; a step can be explained until the next one is asked for."""

    def __init__(
        self,
        engine: TorchEngine | NativeEngine,
        cache: KVCache,
        prompt_ids: Iterable[int],
        piece: Callable[[int], bytes],
    ):
        self._model = modules_of(engine)
        self._cache = cache
        self._token_ids = list(prompt_ids)
        self._piece = piece

    def take(self, step: Step) -> None:
        """Called for every step; costs nothing."""
        if step.rewound_to is not None:
            del self._token_ids[step.rewound_to :]
        self._token_ids += [choice.token_id for choice in step.settled if choice.token_id is not None]

    def explain(self, step: Step) -> Step:
        """The step with its flow, where its first choice was drawn from logits."""
        if not step.choices or step.choices[0].logprob is None or step.choices[0].token_id is None:
            return step
        choice = step.choices[0]
        before = self._token_ids[: choice.position]
        rows = flow_rows(self._model, self._cache, before, step.choices[0].token_id, self._piece)
        return replace(step, flow=rows)

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records, every step explained; a Finish is the last of them, also where explaining fails."""
        totals = Totals()

        def explain() -> Iterator[Record]:
            nonlocal totals
            for record in records:
                if isinstance(record, Step):
                    totals = totals.plus(record)
                    self.take(record)
                    yield self.explain(record)
                else:
                    yield record

        yield from end_always(explain(), lambda: [Finish(0, "error", "", totals)])

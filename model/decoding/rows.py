"""Texts that are computed together, each in the row of one cache that has its number."""

from __future__ import annotations

from collections.abc import Sequence as Several

from tokenglass.model.decoding.autoregressive import next_inputs
from tokenglass.model.decoding.recorder import Recorder
from tokenglass.model.decoding.sequence import Decision, Sequence
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.records.steps import Choice, Phase, Step
from tokenglass.model.sampling.head import HEAD
from tokenglass.model.sampling.raw import Raw
from tokenglass.model.sampling.sampler import choose_each

Inputs = list[int]  # the ids of one row that a pass computes; none where the row takes no part
NOTHING = Decision((), "")


class Rows:
    """`sequences`, and the cache that holds what is computed of each."""

    def __init__(self, engine: Engine, cache: KVCache, sequences: Several[Sequence] = ()):
        self.engine = engine
        self.cache = cache
        self.sequences = list(sequences)

    def inputs(self, row: int, most: int) -> Inputs:
        """What a row lacks, at most so many ids: the token that was drawn last, and those that were forced."""
        return next_inputs(self.sequences[row].token_ids, self.cache, most, row)

    def is_read(self, row: int) -> bool:
        """Whether all of a row's text has been computed."""
        return self.cache.lengths[row] == len(self.sequences[row].token_ids)

    def phase(self, row: int) -> Phase:
        return "decode" if self.sequences[row].has_begun else "prefill"

    def forward(self, inputs: Several[Inputs]) -> list[Logits | None]:
        """Logits (vocab,) behind each row whose text is read with this pass; no others are computed."""
        texts = zip(self.sequences, self.cache.lengths, inputs, strict=True)
        last = [int(0 < len(ids) == len(text.token_ids) - held) for text, held, ids in texts]
        passed = self.engine.forward(inputs, self.cache, last=last)
        return [logits[-1] if len(logits) else None for logits in passed]

    def choose_or_measure(self, logits: Several[Logits | None]) -> list[Choice | Raw | Logits | None]:
        """What each row decides from, given its logits: its choice, where the sampler makes that in one step, else what
        was measured of them. Each of the two is one call for all rows."""
        choices = self._choose(logits)
        rest = {row: after for row, after in enumerate(logits) if after is not None and row not in choices}
        top = max((self.sequences[row].request.top for row in rest), default=0)
        measurements = dict(zip(rest, self.engine.measure_each([*rest.values()], max(HEAD, top)), strict=True))
        return [choices.get(row, measurements.get(row)) for row in range(len(logits))]

    def _choose(self, logits: Several[Logits | None]) -> dict[int, Choice]:
        """The choices, by row, that are made in one step."""
        positions = {
            row: (sequence.sampler, after, context)
            for row, (sequence, after) in enumerate(zip(self.sequences, logits, strict=True))
            if after is not None and (context := sequence.free_context()) is not None
        }
        return choose_each(positions, self.engine.draw_each)

    def step(
        self,
        recorder: Recorder,
        row: int,
        phase: Phase,
        inputs: Inputs,
        decision: Decision,
        *,
        parent: int | None = None,
        rewound_to: int | None = None,
    ) -> Step:
        """The row's part in the pass that was just made; its phase is that from before the decision."""
        return recorder.step(
            phase,
            len(inputs),
            self.cache.usage(row),
            decision.choices,
            decision.text,
            sequence=self.sequences[row].number,
            parent=parent,
            rewound_to=rewound_to,
        )

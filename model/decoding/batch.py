"""Continuous batching: many texts over one model, a row of the cache for each; when one ends, the next begins.

A text is what it would be alone, as far as the engine's numbers do not depend on the other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tokenglass.model.decoding.prompts import Prompts
from tokenglass.model.decoding.recorder import Interrupt, Recorder, record_until
from tokenglass.model.decoding.rows import NOTHING, Inputs, Rows
from tokenglass.model.decoding.sequence import Decision, Sequence
from tokenglass.model.decoding.slots import Slot, Slots
from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.errors import TokenglassError
from tokenglass.model.records.steps import Choice, Finish, Reason, Record, Step, Totals
from tokenglass.model.sampling.raw import Raw


class Batch:
    """The texts that `prompts` gives, at most `most` at once, and so many that they plan for at most `room` positions.

    No pass computes more than `chunk` positions of prompts beside the rows that decode. A text that ends with an error
    while the others go on has it in `failures`, before its Finish comes.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Prompts[Sequence],
        most: int,
        interrupt: Interrupt,
        failures: dict[int, TokenglassError],
        *,
        room: int | None = None,
        chunk: int = 256,
    ):
        self._rows = Rows(engine, engine.new_cache(0))
        self._slots = Slots(self._rows.cache, most, room)
        self._prompts = prompts
        self._interrupt = interrupt
        self._failures = failures
        self._chunk = chunk
        self._next: Sequence | None = None  # taken already, and waits for a place

    def records(self) -> Iterator[Record]:
        """The steps of all texts, and a Finish for each when it ends; an interrupt lets those that have begun end.

        Raises what the engine raises, behind a Finish with reason "error" for every open text.
        """
        return record_until(self, self.decode_once, lambda _: None)

    @property
    def are_open(self) -> bool:
        return bool(self._slots.open) or (
            not self._interrupt.is_set() and (self._next is not None or self._prompts.are_left)
        )

    def end(self, reason: Reason) -> None:
        for slot in self._slots.open:
            slot.sequence.reason = reason

    def finishes(self, totals: Callable[[int], Totals]) -> Iterator[Finish]:
        for slot in self._slots.slots:
            if slot.is_open and slot.is_late:
                slot.sequence.reason = "time"
            if not slot.is_open and not slot.has_finish:
                slot.has_finish = True
                yield slot.sequence.finish(totals(slot.sequence.number))

    def decode_once(self, recorder: Recorder) -> Iterator[Step]:
        """One forward pass over all rows that can go on, and what each of them makes of it."""
        self._slots.share()
        self._begin_more()
        self._slots.share()
        slots, rows = self._slots.slots, self._rows
        rows.sequences = [slot.sequence for slot in slots]
        inputs = self._inputs()
        if not any(inputs):
            return
        rewinds = [slot.sequence.pop_rewind() for slot in slots]
        phases = [rows.phase(row) for row in range(len(slots))]
        prospects = rows.choose_or_measure(rows.forward(inputs))
        decisions = [self._decide(*pair) for pair in zip(slots, prospects, strict=True)]
        for row, slot in enumerate(slots):
            if inputs[row]:
                parent, slot.parent = slot.parent, None
                yield rows.step(
                    recorder, row, phases[row], inputs[row], decisions[row], parent=parent, rewound_to=rewinds[row]
                )

    def _begin_more(self) -> None:
        """Texts for the places that are free."""
        while not self._interrupt.is_set():
            if self._next is None:
                self._next = self._prompts.take(wait=not self._slots.open)
            if self._next is None or not self._slots.has_place(self._next):
                return
            self._slots.begin(self._next)
            self._next = None

    def _inputs(self) -> list[Inputs]:
        """What each row computes in a pass."""
        inputs: list[Inputs] = []
        left = self._chunk
        for row, slot in enumerate(self._slots.slots):
            if not slot.is_open or slot.donor is not None:
                inputs.append([])
            elif slot.sequence.has_begun:
                inputs.append(self._rows.inputs(row, self._chunk))
            else:
                inputs.append(self._rows.inputs(row, left) if left else [])
                left -= len(inputs[-1])
        return inputs

    def _decide(self, slot: Slot, logits: Choice | Raw | Logits | None) -> Decision:
        """What comes next in a text that is read; an error of one text ends that one."""
        try:
            return NOTHING if logits is None else slot.sequence.decide(logits)
        except TokenglassError as error:
            slot.sequence.reason = "error"
            self._failures[slot.sequence.number] = error
            return NOTHING

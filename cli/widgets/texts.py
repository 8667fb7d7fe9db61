"""Several texts followed through the records of their run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tokenglass.model.decoding.run_totals import RunTotals
from tokenglass.model.records.steps import Choice, Finish, LayerExperts, Record, Step
from tokenglass.model.runs.run import Run

State = Literal["running", "ended", "pruned"]


@dataclass(slots=True)
class Text:
    """One sequence as far as it has come."""

    number: int
    choices: list[Choice] = field(default_factory=list)  # of the new tokens that stand
    printed: str = ""
    forward: int = 0  # the last pass it was part of
    is_pruned: bool = False
    finish: Finish | None = None

    @property
    def logprob(self) -> float | None:
        """Sum of the raw log-probabilities; None where one was not reported."""
        logprobs = [choice.logprob for choice in self.choices if choice.logprob is not None]
        return sum(logprobs) if len(logprobs) == len(self.choices) else None

    def latest(self, end_ids: Collection[int], count: int | None = None) -> str:
        """What its last tokens say, end tokens left out; without a count all of them."""
        choices = self.choices if count is None else self.choices[-count:]
        pieces = [choice.piece for choice in choices if choice.token_id not in end_ids]
        return b"".join(pieces).decode("utf-8", "replace")


class Texts:
    """All sequences of a run; `is_complete` once the records have ended."""

    def __init__(self, run: Run):
        self.run = run
        self.run_totals = RunTotals()
        self.is_complete = False
        self._texts: dict[int, Text] = {}
        self._order: list[int] = []  # of the newest pass, as far as it has come
        self._before: list[int] = []  # of the pass before it
        self._pruned: list[int] = []
        self._forward = -1

    @property
    def count(self) -> int:
        """How many texts there will be."""
        search = self.run.search
        return search.beams if search.has_beams else search.num_samples

    @property
    def new_tokens(self) -> int:
        """Of the longest text."""
        return max((len(text.choices) for text in self._texts.values()), default=0)

    @property
    def experts(self) -> list[Sequence[LayerExperts]]:
        """What each text of the newest pass took for its last token, where that was watched."""
        newest = [text.choices[-1] for text in self._texts.values() if text.choices and text.forward == self._forward]
        return [choice.experts for choice in newest if choice.experts]

    @property
    def is_pass_whole(self) -> bool:
        """Whether every text that goes on has its step of the newest pass: those that ended in it may follow."""
        going_on = self.count if self.run.search.has_beams else self.count - len(self.run_totals.finishes)
        return len(self._order) >= (going_on if self.new_tokens else 1)

    def begins_pass(self, record: Record) -> bool:
        return isinstance(record, Step) and record.forward != self._forward

    def add(self, record: Record) -> None:
        self.run_totals.add(record)
        text = self._texts.setdefault(record.sequence, Text(record.sequence))
        text.printed += record.text
        if isinstance(record, Finish):
            text.finish = record
        else:
            self._follow(text, record)

    def by_state(self) -> dict[State, list[Text]]:
        """Running samples in their own order, running beams in that of the newest pass, ended ones as they finished,
        the newest of the pruned first."""
        texts: dict[State, list[Text]] = {"running": [], "ended": [], "pruned": []}
        for text in self._texts.values():
            texts[self._state(text)].append(text)
        ranks = {finish.sequence: rank for rank, finish in enumerate(self.run_totals.finishes)}
        order = {number: place for place, number in enumerate(dict.fromkeys([*self._order, *self._before]))}
        is_ranked = self.run.search.has_beams
        texts["running"].sort(key=lambda text: order.get(text.number, 0) if is_ranked else text.number)
        texts["ended"].sort(key=lambda text: (ranks.get(text.number, 0), -text.forward))
        texts["pruned"].sort(key=lambda text: (-text.forward, text.number))
        return texts

    def whole(self, shown: int) -> list[tuple[str, str, str]]:
        """Title, note and text of each that is to be read in full: all samples, or the `shown` best beams."""
        numbers = sorted(self._texts)
        has_beams = self.run.search.has_beams
        if has_beams:
            running = [text.number for text in self.by_state()["running"]]
            numbers = ([finish.sequence for finish in self.run_totals.finishes] or running)[:shown]
        titled, end_ids = [], self.run.request.eos_token_ids
        for rank, number in enumerate(numbers):
            text = self._texts[number]
            said = text.printed if text.finish is not None or not has_beams else text.latest(end_ids)
            titled.append((*heading(self.run, rank, text.finish), said))
        return titled

    def _state(self, text: Text) -> State:
        if text.is_pruned or (self.is_complete and text.finish is None):
            return "pruned"
        if text.finish is not None or not self.run.search.has_beams:
            return "ended" if text.finish is not None else "running"
        goes_on = text.number in self._order or text.number in self._before  # what became of it may still be told
        at_end = bool(text.choices) and text.choices[-1].token_id in self.run.request.eos_token_ids
        return "running" if goes_on and not at_end else "ended"

    def _follow(self, text: Text, step: Step) -> None:
        if step.forward != self._forward:
            self._forward, self._before, self._order = step.forward, self._order, []
        self._order.append(step.sequence)
        if step.parent in self._texts and step.choices:
            first = step.choices[0].position
            text.choices = [choice for choice in self._texts[step.parent].choices if choice.position < first]
        if step.rewound_to is not None:
            text.choices = [choice for choice in text.choices if choice.position < step.rewound_to]
        text.choices += step.choices
        text.forward = step.forward
        if any(choice.status == "pruned" for choice in step.choices):
            text.is_pruned = True
            self._pruned.append(text.number)
            for number in self._pruned[: -self.count]:  # no longer shown
                del self._texts[number]
            self._pruned = self._pruned[-self.count :]


def heading(run: Run, rank: int, finish: Finish | None = None) -> tuple[str, str]:
    """The title of one of several texts, and a note: a sample's seed, a beam's score."""
    search = run.search
    if search.has_beams:
        score = finish.score if finish is not None else None
        return f"beam {rank + 1} of {search.beams}", "" if score is None else f"score {score:.4f}"
    if rank < len(search.seeds):
        return f"sample {rank + 1} of {len(search.seeds)}", f"seed {search.seeds[rank]}"
    return f"sample {rank + 1}", ""

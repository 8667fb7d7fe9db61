"""From the records of many texts to a line of JSON for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tokenglass.cli.run.many.prompt_line import PromptLine
from tokenglass.cli.say import json_bytes
from tokenglass.model.decoding.request import UNKNOWN_PROMPT, Request
from tokenglass.model.errors import TokenglassError
from tokenglass.model.records.encoder import to_text
from tokenglass.model.records.steps import Choice, Finish, Reason, Record, Step
from tokenglass.model.runs.answers import Answer, Origin, derive_seed
from tokenglass.model.runs.in_order import InOrder


@dataclass(slots=True)
class OpenAnswer:
    """A prompt in work, and the choices that stand of its text."""

    asked: PromptLine
    request: Request
    choices: list[Choice] = field(default_factory=list)
    new_tokens: int = 0  # that were seen

    @property
    def prompt_tokens(self) -> int | None:
        """None where only a server knows."""
        ids = self.request.prompt_ids
        return None if ids == UNKNOWN_PROMPT else len(ids)


class Answers:
    """Follows the texts in work, and passes the lines of those that end on.

    `failures` are the errors that ended texts, by their numbers, as the batch tells them. Choices are part of a line
    where it `has_choices`; a `terminal` gets escapes for what it must not be sent. `tell` is called with what is wrong.
    """

    def __init__(
        self,
        lines: InOrder,
        origin: Origin,
        *,
        has_choices: bool,
        terminal: bool,
        tell: Callable[[str], None],
    ):
        self.num_answered = self.num_failed = self.new_tokens = 0
        self.open: dict[int, OpenAnswer] = {}
        self.failures: dict[int, TokenglassError] = {}
        self._lines = lines
        self._origin = origin
        self._has_choices = has_choices
        self._terminal = terminal
        self._say = tell
        self._next_number = 0

    @property
    def run_seed(self) -> int:
        return self._origin.run_seed

    @property
    def is_full(self) -> bool:
        """Whether so many lines wait for an earlier one that nothing new had better begin."""
        return self._lines.is_full

    def begin(self, asked: PromptLine, request: Request) -> int:
        """A prompt comes into work; the number of its text."""
        number = self._number()
        self.open[number] = OpenAnswer(asked, request)
        return number

    def add(self, record: Record) -> None:
        """One record of a text in work."""
        if isinstance(record, Step):
            self.new_tokens += len(record.settled)
            self.open[record.sequence].new_tokens += len(record.settled)
            if self._has_choices:
                self._keep(record)
        elif record.reason != "error" or record.sequence in self.failures:  # else the run ends: it is not answered
            self._finish(record)

    def refuse(self, asked: PromptLine, error: TokenglassError) -> None:
        """A line that cannot be answered."""
        seed = derive_seed(self._origin.run_seed, asked.id) if asked.seed is None else asked.seed
        self._tell(asked, error)
        self._write(self._number(), asked, seed, reason="error", error=str(error))

    def repeat(self, asked: PromptLine) -> None:
        """A line with the id of an earlier one: that one alone is answered."""
        self._tell(asked, f"the id {asked.id!a} stands on an earlier line, which alone is answered")

    def _keep(self, step: Step) -> None:
        choices = self.open[step.sequence].choices
        if step.rewound_to is not None:
            choices[:] = [choice for choice in choices if choice.position < step.rewound_to]
        choices += step.settled

    def _finish(self, finish: Finish) -> None:
        answer = self.open.pop(finish.sequence)
        self.new_tokens += max(0, finish.totals.new_tokens - answer.new_tokens)  # that came in one message
        error = self.failures.pop(finish.sequence, None)
        if error is None:
            self.num_answered += 1
        else:
            self._tell(answer.asked, error)
        self._write(
            finish.sequence,
            answer.asked,
            answer.request.seed,
            reason=finish.reason,
            text=finish.whole_text or "",
            prompt_tokens=answer.prompt_tokens or finish.totals.prefill_tokens or None,
            new_tokens=finish.totals.new_tokens,
            choices=tuple(answer.choices) if self._has_choices else None,
            error=None if error is None else str(error),
        )

    def _tell(self, asked: PromptLine, error: object) -> None:
        self.num_failed += 1
        self._say(f"line {asked.line:,}: {error}")

    def _write(self, number: int, asked: PromptLine, seed: int, reason: Reason, **about: Any) -> None:
        origin = self._origin
        answer = Answer(
            id=asked.id,
            line=asked.line,
            finish_reason=reason,
            seed=seed,
            **about,
            model=origin.model,
            run_seed=origin.run_seed,
            settings=origin.settings,
        )
        self._lines.add(number, json_bytes(to_text(answer), terminal=self._terminal) + b"\n")

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

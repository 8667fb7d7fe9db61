"""The prompts of a batch, read from lines as they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from tokenglass.cli.run.many.answers import Answers
from tokenglass.cli.run.many.prompt_line import PromptLine
from tokenglass.cli.run.many.read_ahead import ReadAhead
from tokenglass.cli.run.many.source import ManySource
from tokenglass.model.decoding.prompts import AnyText
from tokenglass.model.errors import TokenglassError
from tokenglass.model.runs.answers import fingerprint

Id = str | int | float


class Ids:
    """Whose lines are answered: those in `done` before, and those that came. Fingerprints of ids, 8 bytes each.

    Where lines `have_ids` of their own, one may come twice.
    """

    def __init__(self, done: set[int], *, have_ids: bool):
        self.num_skipped = 0
        self._done = done
        self._seen: set[int] = set()
        self._have_ids = have_ids

    def is_done(self, line_id: Id) -> bool:
        """Whether an earlier run answered this one; asked once for each line."""
        known = fingerprint(line_id)
        if known not in self._done:
            return False
        self._done.remove(known)
        self._add(known)
        self.num_skipped += 1
        return True

    def is_repeated(self, line_id: Id) -> bool:
        """Whether an earlier line has this id."""
        known = fingerprint(line_id)
        if known in self._seen:
            return True
        self._add(known)
        return False

    def _add(self, known: int) -> None:
        if self._have_ids:
            self._seen.add(known)


class LinePrompts(Generic[AnyText]):
    """The texts that lines ask for, but for those that were answered before.

    `answers` gets to know each, and each line that cannot be answered; where `fail_fast`, none is read behind that.
    """

    def __init__(
        self,
        lines: ReadAhead,
        parse: Callable[[int, bytes], PromptLine],
        source: ManySource[AnyText],
        answers: Answers,
        ids: Ids,
        *,
        fail_fast: bool,
    ):
        self.last_line = 0  # that was taken
        self._lines = lines
        self._parse = parse
        self._source = source
        self._answers = answers
        self._ids = ids
        self._fail_fast = fail_fast

    @property
    def num_skipped(self) -> int:
        """How many were answered before."""
        return self._ids.num_skipped

    @property
    def are_left(self) -> bool:
        return not (self._lines.is_over or (self._fail_fast and self._answers.num_failed))

    def take(self, *, wait: bool) -> AnyText | None:
        """The next text that can be written; None where there is none yet, or none any more."""
        while self.are_left and not self._answers.is_full:
            line = self._lines.take(wait=wait)
            if line is None:
                return None
            self.last_line = line[0]
            if (text := self._begin(*line)) is not None:
                return text
        return None

    def _begin(self, number: int, line: bytes) -> AnyText | None:
        """The text that a line asks for, where it can be written and was not before."""
        asked = self._parse(number, line)
        if self._ids.is_done(asked.id):
            return None
        if self._ids.is_repeated(asked.id):
            self._answers.repeat(asked)
            return None
        try:
            if asked.error is not None:
                raise asked.error
            request = self._source.requests.read(asked, self._answers.run_seed)
            text = self._source.begin(asked, request)
        except TokenglassError as error:
            self._answers.refuse(asked, error)
            return None
        text.number = self._answers.begin(asked, request)
        return text

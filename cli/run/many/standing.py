"""How far many prompts are, in numbers and in words."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tokenglass.cli.run.many.answers import Answers
from tokenglass.cli.run.many.prompts import LinePrompts
from tokenglass.cli.text import plural


class Standing:
    """The prompts of a run; `total` lines are there to be read, where that is known."""

    def __init__(self, prompts: LinePrompts[Any], answers: Answers, total: int | None):
        self.total = total
        self._prompts = prompts
        self.answers = answers
        self._began = time.perf_counter()

    @property
    def done(self) -> int:
        """Lines that are read and not in work."""
        return self._prompts.last_line - self.in_work

    @property
    def in_work(self) -> int:
        return len(self.answers.open)

    @property
    def rate(self) -> float:
        """New tokens per second since the run began."""
        return self.answers.new_tokens / (time.perf_counter() - self._began)

    @property
    def is_cut_short(self) -> bool:
        """Whether lines are left that were not answered."""
        return self._prompts.are_left or self.in_work > 0

    def in_words(self, *, has_new_seed: bool) -> str:
        """What was done, how fast, and the seed where the user does not know it."""
        answers, seconds = self.answers, time.perf_counter() - self._began
        words = [plural(answers.num_answered, "prompt") + " answered"]
        words += [f"{self._prompts.num_skipped:,} were before"] if self._prompts.num_skipped else []
        words += [f"{answers.num_failed:,} could not be"] if answers.num_failed else []
        words.append(f"{plural(answers.new_tokens, 'token')} in {seconds:.1f} s")
        words += [f"{self.rate:,.0f} tok/s"] if answers.new_tokens else []
        words += [f"seed {answers.run_seed}"] if has_new_seed else []
        return ", ".join(words)

    def advice(self, output: Path | None) -> str:
        """How to go on with a run that was stopped."""
        if output is not None:
            return f"stopped; the same command goes on with {output}"
        last = min([answer.asked.line - 1 for answer in self.answers.open.values()] or [self._prompts.last_line])
        return f"stopped behind line {last:,}; with --output FILE the same command would go on there"

    def stopping(self) -> str:
        """What a first Ctrl-C does."""
        return f"finishing {plural(self.in_work, 'text')}; the next Ctrl-C quits at once"

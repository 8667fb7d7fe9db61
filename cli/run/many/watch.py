"""How far many prompts are, on stderr: a bar, what a Ctrl-C does, and a line at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenglass.cli.progress import prompt_bar
from tokenglass.cli.run.many.answers import Answers
from tokenglass.cli.run.many.prompts import LinePrompts
from tokenglass.cli.say import say, say_dim
from tokenglass.cli.terminal.interrupts import Interrupt
from tokenglass.cli.text import plural

MOMENT = 0.1  # seconds between two frames


class Watch:
    """Follows the prompts of a run; `total` lines are there to be read, where that is known."""

    def __init__(
        self, prompts: LinePrompts, answers: Answers, interrupt: Interrupt, total: int | None, output: Path | None
    ):
        self._prompts = prompts
        self._answers = answers
        self._interrupt = interrupt
        self._total = total
        self._output = output
        self._began = time.perf_counter()
        self._shown = 0.0
        self._is_stopping = False

    @property
    def is_cut_short(self) -> bool:
        """Whether lines are left that were not answered."""
        return self._prompts.are_left or bool(self._answers.open)

    @contextmanager
    def bar(self, *, is_drawn: bool) -> Iterator[None]:
        with prompt_bar(self._total, is_drawn=is_drawn) as self._draw:
            yield

    def show(self) -> None:
        """A frame, where it is time for one."""
        now = time.perf_counter()
        if self._interrupt.is_set() and not self._is_stopping:
            self._is_stopping = True
            say(f"finishing {plural(len(self._answers.open), 'text')}; the next Ctrl-C quits at once")
        if now - self._shown >= MOMENT:
            self._shown = now
            self._draw(self._prompts.last_line - len(self._answers.open), self._answers.new_tokens)

    def say_end(self, *, is_new_seed: bool) -> None:
        """What was done, how fast, and the seed where the user does not know it."""
        answers, seconds = self._answers, time.perf_counter() - self._began
        words = [plural(answers.num_answered, "prompt") + " answered"]
        words += [f"{self._prompts.num_skipped:,} were before"] if self._prompts.num_skipped else []
        words += [f"{answers.num_failed:,} could not be"] if answers.num_failed else []
        words.append(f"{plural(answers.new_tokens, 'token')} in {seconds:.1f} s")
        words += [f"{answers.new_tokens / seconds:,.0f} tok/s"] if answers.new_tokens else []
        words += [f"seed {answers.run_seed}"] if is_new_seed else []
        say_dim(", ".join(words))

    def say_how_to_go_on(self) -> None:
        if self._output is not None:
            say(f"stopped; the same command goes on with {self._output}")
        else:
            last = min([answer.asked.line - 1 for answer in self._answers.open.values()] or [self._prompts.last_line])
            say(f"stopped behind line {last:,}; with --output FILE the same command would go on there")

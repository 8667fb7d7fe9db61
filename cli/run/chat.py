"""A chat: what each turn computes, shows and keeps, and the settings that its commands change."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.view import ViewName, ViewOptions
from tokenglass.cli.run.chat_model import ChatModel
from tokenglass.cli.run.settings import change
from tokenglass.cli.run.summary import in_words, summary
from tokenglass.cli.run.trace import Keeper
from tokenglass.cli.say import say, say_dim, say_lines
from tokenglass.cli.terminal.interrupts import ChatInterrupts
from tokenglass.cli.text import plural
from tokenglass.cli.views.chat import in_chat
from tokenglass.cli.views.view import Setting, make_view
from tokenglass.model.decoding.conversation import Turn
from tokenglass.model.decoding.request import Request
from tokenglass.model.records.steps import Finish, Reason

ADVICE: dict[Reason, str] = {
    "length": "stopped at -n: /continue goes on",
    "interrupt": "stopped: /continue goes on, /retry begins anew",
    "context": "the context is full: /undo or /clear makes room",
}


@dataclass(slots=True)
class Chat:
    """Everything that the lines of one chat share. `files` are those that it has written or read itself."""

    model: ChatModel
    control: ControlOptions
    sampling: SamplingOptions
    view: ViewOptions
    view_name: ViewName
    keeper: Keeper
    interrupts: ChatInterrupts
    settings: Request
    interactive: bool
    files: set[Path] = field(default_factory=set)

    def answer(self, turn: Turn) -> None:
        """Write and show an answer. Raises TokenglassError, KeyboardInterrupt."""
        request = self.model.request(turn, self.settings, self.control)
        reused = self.model.reuse(request)
        is_kept = self.keeper.is_on or self.view_name is ViewName.jsonl
        run = self.model.describe(request, identify=is_kept)
        if self.interactive:
            say("")
        flag = self.interrupts.soften()
        shown = in_chat(make_view(self.view_name, Setting(self.view, flag)), turn.begun)
        finish = shown.show(*self.keeper.keep(run, self.model.conversation.answer(turn, request, flag)))
        self.interrupts.disarm()
        if not sys.stdout.isatty() and self.view_name is not ViewName.jsonl:
            sys.stdout.buffer.write(b"\n")  # one answer after another
            sys.stdout.buffer.flush()
        reuse = None if reused is None else f"{reused:,} of {len(request.prompt_ids):,}"
        if self.interactive and not self.view.quiet:
            say_dim(facts(finish, reuse))
        elif self.view.stats and reuse is not None:
            say(f"({reuse} prompt positions reused)")
        if self.view.stats:
            say_lines(summary(run, finish))

    def set(self, setting: str) -> None:
        """Change one setting, as its option would. Raises ParameterError, and then all is as it was."""
        control, sampling = change(setting, self.control, self.sampling)
        if sampling.seed is None:
            sampling = replace(sampling, seed=self.settings.seed)
        self.settings = self.keeper.widen(self.model.settings(control, sampling))
        self.control, self.sampling = control, replace(sampling, show_chain=False)

    def reseed(self) -> None:
        """The next seed, for another answer to the same message."""
        self.settings = replace(self.settings, seed=(self.settings.seed + 1) % (self.model.most_seed + 1))


def facts(finish: Finish, reuse: str | None) -> str:
    """One line about an answer: its length and speed, what was not computed again, and why it ended before its end."""
    totals = finish.totals
    words = [plural(totals.new_tokens, "token")]
    words += [] if totals.decode_rate is None else [f"{totals.decode_rate:,.0f} tok/s"]
    words.append("cache not reported" if reuse is None else f"{reuse} positions reused")
    words += [] if finish.reason == "eos" else [ADVICE.get(finish.reason) or in_words(finish)]
    return ", ".join(words)

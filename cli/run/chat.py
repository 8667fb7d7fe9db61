"""A chat: what each turn computes, shows and keeps, and the settings that its commands change."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.view import ViewName, ViewOptions
from tokenglass.cli.run.request import build_request, lengths
from tokenglass.cli.run.settings import change
from tokenglass.cli.run.summary import in_words, summary
from tokenglass.cli.run.trace import Keeper
from tokenglass.cli.say import say, say_dim, say_lines
from tokenglass.cli.terminal.interrupts import ChatInterrupts
from tokenglass.cli.text import plural
from tokenglass.cli.views.chat import in_chat
from tokenglass.cli.views.view import Setting, make_view
from tokenglass.model.decoding.conversation import Conversation, Turn
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.records.steps import Finish, Reason
from tokenglass.model.runs.run import describe_run

ADVICE: dict[Reason, str] = {
    "length": "stopped at -n: /continue goes on",
    "interrupt": "stopped: /continue goes on, /retry begins anew",
    "context": "the context is full: /undo or /clear makes room",
}


@dataclass(slots=True)
class Chat:
    """Everything that the lines of one chat share. `files` are those that it has written or read itself."""

    loaded: LoadedModel
    conversation: Conversation
    control: ControlOptions
    sampling: SamplingOptions
    model: ModelOptions
    view: ViewOptions
    view_name: ViewName
    keeper: Keeper
    interrupts: ChatInterrupts
    settings: Request
    interactive: bool
    files: set[Path] = field(default_factory=set)

    def answer(self, turn: Turn) -> None:
        """Decode and show an answer. Raises TokenglassError, KeyboardInterrupt."""
        request = self.request(turn)
        reused = self.conversation.reuse(request.prompt_ids, request.planned_length(self.loaded.limit))
        is_kept = self.keeper.is_on or self.view_name is ViewName.jsonl
        run = describe_run(self.loaded, request, prompt="", identify=is_kept)
        if self.interactive:
            say("")
        flag = self.interrupts.soften()
        shown = in_chat(make_view(self.view_name, Setting(self.view, flag)), turn.begun)
        finish = shown.show(*self.keeper.keep(run, self.conversation.answer(turn, request, flag)))
        self.interrupts.disarm()
        if not sys.stdout.isatty():
            sys.stdout.buffer.write(b"\n")  # one answer after another
            sys.stdout.buffer.flush()
        reuse = f"{reused:,} of {len(request.prompt_ids):,}"
        if self.interactive and not self.view.quiet:
            say_dim(facts(finish, reuse))
        elif self.view.stats:
            say(f"({reuse} prompt positions reused)")
        if self.view.stats:
            say_lines(summary(run, finish))

    def request(self, turn: Turn) -> Request:
        """What a turn asks of the model. Raises PromptError where the context has no room for it."""
        length, limit = len(turn.prompt_ids), self.loaded.limit
        if length >= limit:
            raise PromptError(
                f"the conversation is {length:,} tokens and the context holds {limit:,}, the answer included; "
                "/undo or /clear makes room"
            )
        most, least = lengths(self.loaded, self.control, length)
        if turn.least and self.settings.constraint is not None:
            raise ParameterError("the answer is complete by its constraint, and cannot go on")
        return replace(
            self.settings, prompt_ids=turn.prompt_ids, max_new_tokens=most, min_new_tokens=max(least, turn.least)
        )

    def set(self, setting: str) -> None:
        """Change one setting, as its option would. Raises ParameterError, and then all is as it was."""
        control, sampling = change(setting, self.control, self.sampling)
        if sampling.seed is None:
            sampling = replace(sampling, seed=self.settings.seed)
        settings = build_request(
            self.loaded, (0,), control, sampling, self.model, self.view.top, chat=True, notes=False
        )
        self.settings = self.keeper.widen(settings)
        self.control, self.sampling = control, replace(sampling, show_chain=False)

    def reseed(self) -> None:
        """The next seed, for another answer to the same message."""
        self.settings = replace(self.settings, seed=(self.settings.seed + 1) % 2**64)


def facts(finish: Finish, reuse: str) -> str:
    """One line about an answer: its length and speed, what was not computed again, and why it ended before its end."""
    totals = finish.totals
    words = [plural(totals.new_tokens, "token")]
    words += [] if totals.decode_rate is None else [f"{totals.decode_rate:,.0f} tok/s"]
    words.append(f"{reuse} positions reused")
    words += [] if finish.reason == "eos" else [ADVICE.get(finish.reason) or in_words(finish)]
    return ", ".join(words)

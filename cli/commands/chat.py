"""chat: a conversation of several turns that keeps its cache."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tokenglass.cli.options.common import Debug
from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.prompt import System
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.trace import TraceOptions
from tokenglass.cli.options.view import Panel, PanelSize, Speed, ViewName, ViewOptions
from tokenglass.cli.run.trace import Keeper
from tokenglass.cli.say import say, say_lines
from tokenglass.cli.terminal.opening import opening
from tokenglass.model.errors import PromptError, TokenglassError
from tokenglass.model.files import expand_home

if TYPE_CHECKING:
    from tokenglass.cli.terminal.interrupts import ChatInterrupts
    from tokenglass.model.decoding.conversation import Conversation

HELP = "/clear forgets the conversation, /save FILE writes it as JSON, /help shows this; Ctrl-D ends"


@dataclass(frozen=True, slots=True)
class ChatControlOptions(ControlOptions):
    DEFAULT_LENGTH: ClassVar[int] = 512


@dataclass(frozen=True, slots=True)
class ChatViewOptions(ViewOptions):
    panel: Panel = PanelSize.slim
    speed: Speed = "max"  # what is typed during an answer is the next line, not keys


@flat
def chat(
    control: ChatControlOptions,
    sampling: SamplingOptions,
    view: ChatViewOptions,
    trace: TraceOptions,
    model: ModelOptions,
    system: System = None,
    debug: Debug = False,
) -> None:
    """Talk with a chat model, turn by turn.

    Only what is new is computed at each turn. /clear, /save FILE and /help work at the prompt; Ctrl-C stops an answer,
    Ctrl-D ends.
    """
    with opening() as first:
        from tokenglass.cli.run import session
        from tokenglass.cli.run.request import build_request, fit, lengths, plan_caches
        from tokenglass.cli.run.summary import summary
        from tokenglass.cli.terminal.interrupts import ChatInterrupts
        from tokenglass.cli.views.view import Setting, make_view
        from tokenglass.model.decoding.conversation import Conversation
        from tokenglass.model.runs.run import describe_run
        from tokenglass.model.text.chat import ChatTemplate, Message

        name = session.settle_view(view)
        keeper = Keeper(trace, view.candidates)
        opened = session.open_model(model, first)
        template = ChatTemplate.from_folder(opened.checkpoint.folder)
        settings = keeper.widen(build_request(opened, (0,), control, sampling, model, view.candidates, chat=True))
        loaded = session.load(opened, plan_caches(settings, opened), first)
        conversation = Conversation(
            loaded.engine, loaded.tokenizer, template, () if system is None else (Message("system", system),)
        )
    interactive = sys.stdin is not None and sys.stdin.isatty()

    def turn(line: str) -> None:
        """Answer one line of the user. Raises TokenglassError, KeyboardInterrupt."""
        interrupts.arm()
        prompt_ids = fit(loaded, conversation.prompt_ids(line), control, None)
        most, least = lengths(loaded, control, len(prompt_ids))
        request = replace(settings, prompt_ids=prompt_ids, max_new_tokens=most, min_new_tokens=least)
        reused = conversation.reuse(request.prompt_ids, request.planned_length(loaded.limit))
        run = describe_run(loaded, request, prompt="", identify=keeper.is_on or name is ViewName.jsonl)
        flag = interrupts.soften()
        finish = make_view(name, Setting(view, flag)).show(*keeper.keep(run, conversation.answer(line, request, flag)))
        interrupts.disarm()
        if not sys.stdout.isatty():
            sys.stdout.buffer.write(b"\n")  # one answer after another
            sys.stdout.buffer.flush()
        if interactive or view.stats:
            say(f"({reused:,} of {len(request.prompt_ids):,} prompt positions reused)")
        if view.stats:
            say_lines(summary(run, finish))

    with keeper, ChatInterrupts().handled() as interrupts:
        if interactive:
            say(f"{loaded.name}, seed {settings.seed}. {HELP}")
        while (line := next_line(interactive, interrupts)) is not None:
            try:
                if line.startswith("/"):
                    say(obey(line, conversation))
                elif line.strip():
                    turn(line)
            except (TokenglassError, KeyboardInterrupt) as error:
                interrupts.disarm()
                if not interactive:
                    raise
                say(f"{error}; /clear begins anew" if isinstance(error, TokenglassError) else "")


def next_line(interactive: bool, interrupts: ChatInterrupts) -> str | None:
    """The next line of the user, or None at the end. On a terminal, Ctrl-C empties a line, and bytes that are no text
    are told of."""
    while True:
        try:
            interrupts.arm()
            line = read_line(interactive)
            interrupts.disarm()
            return line
        except (PromptError, KeyboardInterrupt) as error:
            interrupts.disarm()
            if not interactive:
                raise
            say(str(error))


def read_line(interactive: bool) -> str | None:
    """The next line of the user, or None at the end. Raises PromptError."""
    from tokenglass.cli.run.prompt import decode, utf8_argument

    if not interactive:
        line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
        return decode(line, "stdin", keep_newline=False) if line else None
    import contextlib

    with contextlib.suppress(ImportError):  # line editing and history, where the platform has them
        import readline  # noqa: F401  (input() uses it once it is imported)
    try:
        return utf8_argument(input("> "))
    except EOFError:
        say("")
        return None


def obey(line: str, conversation: Conversation) -> str:
    """Carry out a line that begins with a slash; what to say about it."""
    import json

    command, _, argument = line.strip().partition(" ")
    if command == "/clear":
        conversation.clear()
        return "the conversation is forgotten"
    if command == "/save" and argument:
        messages = [message.fields for message in conversation.messages]
        try:
            expand_home(argument).write_text(json.dumps(messages, ensure_ascii=False, indent=2) + "\n", "utf-8")
        except (OSError, ValueError) as error:  # a null byte in the name, or half a character
            return f"{argument}: {getattr(error, 'strerror', None) or error}"
        return f"{len(messages)} messages written to {argument}"
    return HELP if command == "/help" else f"unknown command {command}; {HELP}"

"""chat: a conversation of several turns that keeps its cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tokenglass.cli.options.common import Debug
from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import ServedModelOptions
from tokenglass.cli.options.passes import PassOptions
from tokenglass.cli.options.prompt import System
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.trace import TraceOptions
from tokenglass.cli.options.view import Panel, PanelSize, Speed, ViewOptions
from tokenglass.cli.run.trace import Keeper
from tokenglass.cli.say import say, say_dim
from tokenglass.cli.terminal.opening import opening
from tokenglass.model.errors import ParameterError, TokenglassError

if TYPE_CHECKING:
    from tokenglass.cli.run.chat import Chat
    from tokenglass.cli.run.chat_model import ChatModel
    from tokenglass.cli.run.lines import LineReader


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
    model: ServedModelOptions,
    passes: PassOptions,
    system: System = None,
    debug: Debug = False,
) -> None:
    """Talk with a chat model, turn by turn.

    Only what is new is computed at each turn. /help at the prompt lists the commands: retry, undo, settings, files.
    Without -m, a chat model that was pulled or imported answers. Ctrl-C stops an answer, Ctrl-D ends.
    """
    if view.flow or view.stages:
        raise ParameterError("--flow and --stages look into one answer; use generate --chat")
    with opening(quiet=view.quiet) as first:
        from tokenglass.cli.run import session
        from tokenglass.cli.run.chat import Chat
        from tokenglass.cli.run.chat_commands import COMMANDS
        from tokenglass.cli.run.chat_model import ChatOptions
        from tokenglass.cli.run.lines import LineReader
        from tokenglass.cli.run.prepared import is_served
        from tokenglass.cli.terminal.interrupts import ChatInterrupts
        from tokenglass.model.text.chat import Message

        name = session.settle_view(view)
        keeper = Keeper(trace, view.top)
        messages = () if system is None else (Message("system", system),)
        options = ChatOptions(control, sampling, view, model, passes, messages, keeper)
        chat_model: ChatModel
        if is_served(model):
            from tokenglass.cli.run.served_chat import open_served_chat

            chat_model, settings = open_served_chat(options, first)
        else:
            from tokenglass.cli.run.local_chat import open_local_chat

            chat_model, settings = open_local_chat(options, first)
    lines = LineReader([command.name for command in COMMANDS])
    with keeper, ChatInterrupts().handle() as interrupts:
        chat = Chat(
            chat_model,
            control,
            replace(sampling, show_chain=False),
            view,
            name,
            keeper,
            interrupts,
            settings,
            lines.is_interactive,
        )
        if lines.is_interactive and not view.quiet:
            say_dim(f"{chat_model.name}, seed {settings.seed}. /help names the commands, Ctrl-D ends.")
            say("")
        talk(chat, lines)


def talk(chat: Chat, lines: LineReader) -> None:
    """Answer line after line. On a terminal no error ends the chat, and Ctrl-C stops what is going on."""
    from tokenglass.cli.run.chat_commands import EndOfChat, obey

    interrupts = chat.interrupts
    while True:
        line: str | None = ""
        try:
            interrupts.arm()
            line = lines.read()
            if line is None:
                return
            if line.startswith("/"):
                if said := obey(chat, line):
                    say(said)
            elif line.strip():
                chat.answer(chat.model.conversation.ask(line))
            interrupts.disarm()
        except EndOfChat:
            return
        except (TokenglassError, KeyboardInterrupt) as error:
            interrupts.disarm()
            goes_on = isinstance(error, TokenglassError) and (line or "").startswith("/")
            if not (chat.interactive or goes_on):
                raise
            say(str(error) or ("" if line else "Ctrl-D ends the chat"))
        if chat.interactive and line:
            say("")

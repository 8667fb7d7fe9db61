"""What begins with a slash in a chat."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from tokenglass.cli.run.prompt import decode, read_file
from tokenglass.cli.run.summary import settings
from tokenglass.cli.say import say_lines
from tokenglass.cli.text import plural
from tokenglass.model.errors import ParameterError, PromptError, did_you_mean
from tokenglass.model.files import expand_home, write_whole
from tokenglass.model.text.chat import parse_messages

if TYPE_CHECKING:
    from rich.console import Console

    from tokenglass.cli.run.chat import Chat
    from tokenglass.model.decoding.conversation import Answer

FLOW_ROWS = 12  # of each table
NAME = 17  # cells for a command in the help


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """A command: what may follow its name, what it does in words, and the function that does it and says so."""

    name: str
    argument: str
    help: str
    act: Callable[[Chat, str], str]


class EndOfChat(Exception):  # noqa: N818  (it is no error)
    """The user wants to leave."""


def obey(chat: Chat, line: str) -> str:
    """Carry out a line that begins with a slash; what to say about it. Raises TokenglassError, EndOfChat."""
    name, _, argument = line.strip().partition(" ")
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        meant = did_you_mean(name, [command.name for command in COMMANDS]) or "; /help names them all"
        raise ParameterError(f"unknown command {name}{meant}")
    if argument and not command.argument:
        raise ParameterError(f"{name} stands alone; {argument!r} has no meaning here")
    return command.act(chat, argument.strip())


def retry(chat: Chat, _: str) -> str:
    conversation = chat.model.conversation
    turn = conversation.retry()
    if conversation.messages[-1].role == "assistant":  # a message that waits for its answer needs no new draw
        chat.reseed()
    chat.answer(turn)
    return ""


def go_on(chat: Chat, _: str) -> str:
    chat.answer(chat.model.conversation.go_on())
    return ""


def undo(chat: Chat, _: str) -> str:
    return f"taken back: {chat.model.conversation.undo()}"


def clear(chat: Chat, _: str) -> str:
    chat.model.conversation.clear()
    return "the conversation is forgotten"


def system(chat: Chat, text: str) -> str:
    first = next(iter(chat.model.conversation.messages), None)
    before = first.content if first is not None and first.role == "system" else None
    if not text:
        return f"the system message is: {before}" if before else "there is no system message; /system TEXT gives one"
    if text == "-":
        chat.model.conversation.instruct("")
        return "no system message any more"
    chat.model.conversation.instruct(text)
    return "the system message is another one" if before else "the system message is set"


def set_(chat: Chat, setting: str) -> str:
    if setting:
        chat.set(setting)
    request = chat.settings
    most = "" if chat.control.max_new_tokens is None else f", max new tokens {chat.control.max_new_tokens:,}"
    return f"{', '.join(settings(request.sampling))}, seed {request.seed}{most}"


def save(chat: Chat, name: str) -> str:
    if not name:
        raise ParameterError("name a file, as in /save talk.json")
    if not chat.model.conversation.messages:
        raise ParameterError("there is nothing to save yet")
    path = expand_home(name)
    messages = [message.fields for message in chat.model.conversation.messages]
    try:
        write_whole(json.dumps(messages, ensure_ascii=False, indent=2) + "\n", path, new=path not in chat.files)
    except (OSError, ValueError) as error:  # a null byte in the name, or half a character
        reason = "already exists; give another name" if isinstance(error, FileExistsError) else ""
        raise ParameterError(f"{name}: {reason or getattr(error, 'strerror', None) or error}") from None
    chat.files.add(path)
    return f"{plural(len(messages), 'message')} written to {name}"


def load(chat: Chat, name: str) -> str:
    if not name:
        raise ParameterError("name a file, as in /load talk.json")
    path = expand_home(name)
    messages = parse_messages(decode(read_file(path), name, keep_newline=True))
    chat.model.conversation.resume(messages)
    chat.files.add(path)
    waits = "; the last one waits for an answer: /retry" if messages[-1].role in ("user", "tool") else ""
    return f"{plural(len(messages), 'message')} read from {name}{waits}"


def tokens(chat: Chat, _: str) -> str:
    from tokenglass.cli.widgets.answer_tokens import AnswerTokens

    answer = last_answer(chat)
    stderr_console(chat).print(AnswerTokens(answer.choices))
    length, limit, own = len(answer.token_ids), chat.model.limit, len(answer.choices)
    if limit is None:
        return f"{plural(own, 'token')}; the context is not reported"
    return f"{length:,} of {limit:,} positions of the context, {own:,} of them the answer"


def thoughts(chat: Chat, _: str) -> str:
    messages = chat.model.conversation.messages
    thought = messages[-1].fields.get("reasoning_content") if messages else None
    if not isinstance(thought, str) or not thought.strip():
        return "there are no thoughts before the last answer"
    say_lines(thought)
    return ""


def flow(chat: Chat, number: str) -> str:
    from tokenglass.cli.widgets.flow_page import FlowPage, styles_of

    answer = last_answer(chat)
    last = len(answer.choices)
    if not last or (number and not (number.isdecimal() and 1 <= int(number) <= last)):
        raise ParameterError(f"/flow N explains a token of the last answer, 1 to {last}; /tokens counts them")
    token_ids = [choice.token_id for choice in answer.choices if choice.token_id is not None]
    reading = chat.model.read((*answer.prompt_ids, *token_ids))
    console = stderr_console(chat)
    position = answer.choices[int(number or last) - 1].position
    console.print(FlowPage(reading.at(position), styles_of(console), FLOW_ROWS))
    return ""


def help_(_chat: Chat, _: str) -> str:
    names = [f"{command.name} {command.argument}".rstrip() for command in COMMANDS]
    lines = [f"{name:{NAME}}{command.help}" for name, command in zip(names, COMMANDS, strict=True)]
    width = get_terminal_size().columns
    wrapped = [textwrap.fill(line, width, subsequent_indent=" " * NAME) for line in lines]
    keys = "A line that ends in \\ goes on in the next. Ctrl-C stops an answer, Ctrl-D ends."
    say_lines("\n".join([*wrapped, textwrap.fill(keys, width)]))
    return ""


def leave(_chat: Chat, _: str) -> str:
    raise EndOfChat


def last_answer(chat: Chat) -> Answer:
    """Raises PromptError."""
    if chat.model.conversation.last is None:
        raise PromptError("there is no answer to look into yet")
    return chat.model.conversation.last


def stderr_console(chat: Chat) -> Console:
    from tokenglass.cli.terminal.console import make_console

    return make_console(sys.stderr, color=chat.view.color.value)


COMMANDS = (
    ChatCommand("/retry", "", "answer the last message anew, with the next seed", retry),
    ChatCommand("/continue", "", "let the last answer go on", go_on),
    ChatCommand("/undo", "", "take back the last message and its answer", undo),
    ChatCommand("/clear", "", "forget all but the system message", clear),
    ChatCommand("/system", "TEXT", "another system message; - is none; without a text, show it", system),
    ChatCommand("/set", "NAME VALUE", "change a setting, as in /set temperature 0.5", set_),
    ChatCommand("/tokens", "", "the last answer, token by token", tokens),
    ChatCommand("/flow", "N", "what made token N of the last answer, or its last one", flow),
    ChatCommand("/thoughts", "", "what the model thought before its last answer", thoughts),
    ChatCommand("/save", "FILE", "write the conversation as JSON", save),
    ChatCommand("/load", "FILE", "go on with a conversation from a file", load),
    ChatCommand("/help", "", "show this", help_),
    ChatCommand("/quit", "", "end the chat", leave),
)

"""A conversation with the model of a server: each turn is one request, which holds all messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tokenglass.model.decoding.conversation import Conversation, Turn
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import UNKNOWN_PROMPT, Request
from tokenglass.model.errors import PromptError
from tokenglass.model.records.steps import Record
from tokenglass.model.sources.server.api import Prompt
from tokenglass.model.sources.server.probe import Server
from tokenglass.model.sources.server.source import ServerSource
from tokenglass.model.text.chat import Message
from tokenglass.model.text.thoughts import TAGS, Tags, Thoughts


class ServedConversation(Conversation):
    """The server's own template writes out the messages. Of a thought they hold only the answer behind it."""

    def __init__(self, server: Server, messages: Sequence[Message] = ()):
        super().__init__(messages)
        self.server = server

    @property
    def tags(self) -> Tags:
        return TAGS[0]

    def _turn(self, messages: tuple[Message, ...]) -> Turn:
        prompt = self.server.text_of(tuple(map(without_thought, messages)))
        turn = self._turn_of(messages, prompt)
        opening = next((tags for tags in TAGS if turn.text and turn.text.rstrip().endswith(tags.begin)), None)
        return turn if opening is None else replace(turn, begun=Thoughts(opening, is_thinking=True))

    def _turn_behind(self, messages: tuple[Message, ...], said: str) -> Turn:
        prompt = self.server.text_of(tuple(map(without_thought, messages)))
        if not isinstance(prompt, str):
            raise PromptError(f"{self.server.api.name} does not tell a chat's text, so no answer can go on; try /retry")
        return self._turn_of(messages, prompt + said)

    def _check(self, messages: tuple[Message, ...]) -> None:
        """The server does, when it is asked."""

    def _turn_of(self, messages: tuple[Message, ...], prompt: Prompt) -> Turn:
        prompt_ids = self.server.token_ids(prompt) or UNKNOWN_PROMPT
        return Turn(messages, prompt_ids, text=prompt if isinstance(prompt, str) else None)

    def _records(self, turn: Turn, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        prompt = tuple(map(without_thought, turn.messages)) if turn.text is None else turn.text
        return ServerSource(self.server, prompt).records(request, interrupt)


def without_thought(message: Message) -> Message:
    """The message as it is sent: a field of our own is nothing that every server takes."""
    fields = {name: value for name, value in message.fields.items() if name != "reasoning_content"}
    return replace(message, fields=fields)

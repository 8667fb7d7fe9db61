"""A chat with the model of a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.run.chat_model import ChatModel, ChatOptions
from tokenglass.cli.run.remote import HONOURED, build_request, open_server, refuse_others, tell_limit
from tokenglass.cli.terminal.opening import Opening
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.runs.run import Run
from tokenglass.model.sources.server.conversation import ServedConversation
from tokenglass.model.sources.server.probe import Server
from tokenglass.model.sources.server.source import describe_served
from tokenglass.model.text.chat import Message

if TYPE_CHECKING:
    from tokenglass.model.inspection.reading import Reading


class ServedChat(ChatModel):
    """A server, and a conversation with its model."""

    def __init__(self, server: Server, messages: tuple[Message, ...], top: int):
        super().__init__(ServedConversation(server, messages))
        self.most_seed = server.api.most_seed
        self._server = server
        self._top = top

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def limit(self) -> int | None:
        return self._server.context

    def settings(self, control: ControlOptions, sampling: SamplingOptions) -> Request:
        refuse_others(control, HONOURED["control"])
        return build_request(self._server, control, sampling, self._top)

    def lengths(self, control: ControlOptions, _: int) -> tuple[int, int]:
        return control.planned_length, control.min_new_tokens or 0

    def reuse(self, _: Request) -> None:
        return None

    def describe(self, request: Request, **_: bool) -> Run:
        return describe_served(self._server, request, "")

    def read(self, _: Sequence[int]) -> Reading:
        raise ParameterError("/flow looks into a model that is here; a server does not report its hidden states")


def open_served_chat(options: ChatOptions, opening: Opening) -> tuple[ServedChat, Request]:
    """A chat with the server that -m names, and what is asked of every turn. Raises TokenglassError."""
    for name in ("control", "view", "model", "passes"):
        refuse_others(getattr(options, name), HONOURED[name])
    chat = ServedChat(server := open_server(options.model, opening), options.messages, options.view.top)
    settings = options.keeper.widen(chat.settings(options.control, options.sampling))
    tell_limit(server, (), settings.top, options.view)
    return chat, settings

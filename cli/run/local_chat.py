"""A chat with a model that is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.passes import PassOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.run import session
from tokenglass.cli.run.chat_model import ChatModel, ChatOptions
from tokenglass.cli.run.model_folder import chat_model
from tokenglass.cli.run.request import build_request, lengths, plan_caches
from tokenglass.cli.terminal.opening import Opening
from tokenglass.model.decoding.cached_conversation import CachedConversation
from tokenglass.model.decoding.request import Request
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.runs.run import Run, describe_run
from tokenglass.model.text.chat import ChatTemplate

if TYPE_CHECKING:
    from tokenglass.model.inspection.reading import Reading


class LocalChat(ChatModel):
    """A loaded model, and a conversation over one cache."""

    conversation: CachedConversation

    def __init__(self, loaded: LoadedModel, conversation: CachedConversation, passes: PassOptions, top: int):
        super().__init__(conversation)
        self._loaded = loaded
        self._passes = passes
        self._top = top

    @property
    def name(self) -> str:
        return self._loaded.name

    @property
    def limit(self) -> int:
        return self._loaded.limit

    def settings(self, control: ControlOptions, sampling: SamplingOptions) -> Request:
        return build_request(self._loaded, (0,), control, sampling, self._passes, self._top, chat=True, notes=False)

    def lengths(self, control: ControlOptions, prompt_length: int) -> tuple[int, int]:
        return lengths(self._loaded, control, prompt_length)

    def reuse(self, request: Request) -> int:
        return self.conversation.reuse(request.prompt_ids, request.planned_length(self.limit))

    def describe(self, request: Request, *, identify: bool) -> Run:
        return describe_run(self._loaded, request, prompt="", identify=identify)

    def read(self, token_ids: Sequence[int]) -> Reading:
        from tokenglass.model.inspection.explainer import reading_of

        return reading_of(self._loaded.engine, token_ids, self._loaded.tokenizer.piece)


def open_local_chat(options: ChatOptions, opening: Opening) -> tuple[LocalChat, Request]:
    """A chat with the model that -m names, else with the chat model that is here; and what is asked of every turn.

    Raises TokenglassError.
    """
    model, passes, top = options.model, options.passes, options.view.top
    if model.model is None and not model.lora:
        model = replace(model, model=chat_model())
    opened = session.open_model(model, opening, watches_experts=options.view.experts)
    template = ChatTemplate.from_folder(opened.checkpoint.folder)
    settings = options.keeper.widen(
        build_request(opened, (0,), options.control, options.sampling, passes, top, chat=True)
    )
    loaded = session.load(opened, plan_caches(settings, opened), opening)
    conversation = CachedConversation(loaded.engine, loaded.tokenizer, template, options.messages)
    return LocalChat(loaded, conversation, passes, top), settings

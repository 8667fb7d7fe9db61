"""What a chat asks of who answers in it: a model that is here, or a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.run.text_options import TextOptions
from tokenglass.model.decoding.conversation import Conversation, Turn
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.runs.run import Run

if TYPE_CHECKING:
    from tokenglass.cli.run.trace import Keeper
    from tokenglass.model.inspection.reading import Reading
    from tokenglass.model.text.chat import Message


@dataclass(frozen=True, slots=True)
class ChatOptions(TextOptions):
    """All that `chat` is asked, and the messages that it begins with."""

    messages: tuple[Message, ...]
    keeper: Keeper


class ChatModel(ABC):
    """The model, and the conversation with it."""

    most_seed = 2**64 - 1

    def __init__(self, conversation: Conversation):
        self.conversation = conversation

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def limit(self) -> int | None:
        """Positions of the context; None where nobody reports them."""

    @abstractmethod
    def settings(self, control: ControlOptions, sampling: SamplingOptions) -> Request:
        """What the options ask of every turn. Raises ParameterError."""

    @abstractmethod
    def lengths(self, control: ControlOptions, prompt_length: int) -> tuple[int, int]:
        """New tokens of a turn, at most and at least. Raises ParameterError, PromptError."""

    @abstractmethod
    def reuse(self, request: Request) -> int | None:
        """Positions of a prompt that need no computing; None where nobody reports them."""

    @abstractmethod
    def describe(self, request: Request, *, identify: bool) -> Run:
        """The run of a turn; `identify` as `describe_run` has it."""

    @abstractmethod
    def read(self, token_ids: Sequence[int]) -> Reading:
        """The text as the model reads it. Raises ParameterError, PromptError."""

    def request(self, turn: Turn, settings: Request, control: ControlOptions) -> Request:
        """What a turn asks for. Raises PromptError where the context has no room for it."""
        length, limit = len(turn.prompt_ids), self.limit
        if limit is not None and length >= limit:
            raise PromptError(
                f"the conversation is {length:,} tokens and the context holds {limit:,}, the answer included; "
                "/undo or /clear makes room"
            )
        most, least = self.lengths(control, length)
        if turn.least and settings.constraint is not None:
            raise ParameterError("the answer is complete by its constraint, and cannot go on")
        return replace(settings, prompt_ids=turn.prompt_ids, max_new_tokens=most, min_new_tokens=max(least, turn.least))

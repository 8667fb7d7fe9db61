"""A conversation of several turns, whoever answers: its messages, and what is asked next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import PromptError
from tokenglass.model.records.steps import Choice, Finish, Reason, Record, Step
from tokenglass.model.text.chat import Message
from tokenglass.model.text.thoughts import Tags, Thoughts


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be answered, as messages and as token ids. Of an answer that goes on, `begun` and `choices` are there
    already."""

    messages: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    begun: Thoughts = field(default_factory=Thoughts)
    choices: tuple[Choice, ...] = ()
    least: int = 0  # new tokens
    text: str | None = None  # of the prompt, where it is sent as one


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer as it was decoded."""

    prompt_ids: tuple[int, ...]
    choices: tuple[Choice, ...]
    thoughts: Thoughts
    reason: Reason

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The prompt and the answer, without the token that ended it."""
        choices = self.choices[:-1] if self.reason == "eos" else self.choices
        return (*self.prompt_ids, *(choice.token_id for choice in choices if choice.token_id is not None))


class Conversation(ABC):
    """The messages so far. `last` is there while its answer is the last message."""

    def __init__(self, messages: Sequence[Message] = ()):
        self.messages = tuple(messages)
        self.last: Answer | None = None

    @property
    @abstractmethod
    def tags(self) -> Tags:
        """What stands before and behind a thought."""

    @abstractmethod
    def _turn(self, messages: tuple[Message, ...]) -> Turn:
        """The turn that answers these messages. Raises TemplateError, ServerError."""

    @abstractmethod
    def _turn_behind(self, messages: tuple[Message, ...], said: str) -> Turn:
        """The turn in which an answer to these messages goes on. Raises TemplateError, PromptError, ServerError."""

    @abstractmethod
    def _records(self, turn: Turn, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        """What answers a turn."""

    @abstractmethod
    def _check(self, messages: tuple[Message, ...]) -> None:
        """Raises TemplateError where there is no place for them."""

    def ask(self, text: str) -> Turn:
        """The turn that one more message of the user begins. Raises TemplateError, ServerError."""
        return self._turn((*self.messages, Message("user", text)))

    def retry(self) -> Turn:
        """The last turn once more. Raises PromptError where there is none, TemplateError."""
        messages = self.messages
        while messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        if not messages or messages[-1].role in ("system", "developer"):
            raise PromptError("there is no message to answer again")
        return self._turn(messages)

    def go_on(self) -> Turn:
        """The turn in which the last answer goes on where it stopped. Raises PromptError where there is none."""
        if not self.messages or self.messages[-1].role != "assistant":
            raise PromptError("there is no answer to go on with")
        said, thought = self.messages[-1].content, self.messages[-1].fields.get("reasoning_content")
        if not isinstance(said, str):
            raise PromptError("the last answer is not plain text, and cannot go on")
        begun = Thoughts.over(said, thought if isinstance(thought, str) else "", self.tags)
        return replace(self._turn_behind(self.messages[:-1], said), begun=begun)

    def answer(self, turn: Turn, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        """Write an answer; when it is finished, it and what it answers are the conversation.

        `request` holds the prompt of the turn. An answer that an error ends, or an interrupt before its first text,
        leaves the conversation as it was.
        """
        thoughts, choices, has_text = copy(turn.begun), list(turn.choices), False
        for record in self._records(turn, request, interrupt):
            has_text = has_text or bool(record.text)
            if isinstance(record, Step):
                if record.rewound_to is not None:
                    choices = [choice for choice in choices if choice.position < record.rewound_to]
                choices += record.settled
            thoughts.add(record.text, settled_ids(record))
            if isinstance(record, Finish) and record.reason != "error" and (record.reason != "interrupt" or has_text):
                self._keep(turn, thoughts, record, tuple(choices))
            yield record

    def undo(self) -> str:
        """Take back the last message of the user and all that came after it; the message. Raises PromptError."""
        places = [place for place, message in enumerate(self.messages) if message.role == "user"]
        if not places:
            raise PromptError("there is no message to take back")
        message, self.messages, self.last = self.messages[places[-1]], self.messages[: places[-1]], None
        return message.content if isinstance(message.content, str) else ""

    def instruct(self, text: str) -> None:
        """Another system message, or the first; none where the text is empty. Raises TemplateError."""
        later = self.messages[1:] if self.messages and self.messages[0].role == "system" else self.messages
        messages = (*((Message("system", text),) if text else ()), *later)
        self._check(messages)
        self.messages = messages

    def resume(self, messages: Sequence[Message]) -> None:
        """Go on from these messages; what an assistant says in them counts as generated. Raises TemplateError."""
        generated = tuple(replace(message, is_generated=message.role == "assistant") for message in messages)
        self._check(generated)
        self.messages, self.last = generated, None

    def clear(self) -> None:
        """Forget all but the system message."""
        self.messages = tuple(message for message in self.messages if message.role == "system")
        self.last = None

    def _keep(self, turn: Turn, thoughts: Thoughts, finish: Finish, choices: tuple[Choice, ...]) -> None:
        end = copy(thoughts)  # what may be the beginning of a tag is text, unless the answer goes on
        end.flush()
        fields = {"role": "assistant", "content": end.said}
        if thought := end.thought.strip("\n"):
            fields["reasoning_content"] = thought
        self.messages = (*turn.messages, Message("assistant", end.said, fields, is_generated=True))
        prompt_ids = turn.prompt_ids[: len(turn.prompt_ids) - len(turn.choices)]
        self.last = Answer(prompt_ids, choices, thoughts, finish.reason)


def settled_ids(record: Record) -> set[int]:
    """The tokens that a record decides."""
    settled = record.settled if isinstance(record, Step) else ()
    return {choice.token_id for choice in settled if choice.token_id is not None}

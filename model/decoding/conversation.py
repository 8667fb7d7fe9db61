"""A conversation of several turns over one cache: what was computed once is not computed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Engine
from tokenglass.model.errors import PromptError
from tokenglass.model.records.steps import Choice, Finish, Reason, Record, Step
from tokenglass.model.text.chat import ChatTemplate, Message
from tokenglass.model.text.thoughts import Tags, Thoughts, tags_of
from tokenglass.model.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be answered, as messages and as token ids. Of an answer that goes on, `begun` and `choices` are there
    already."""

    messages: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    begun: Thoughts = field(default_factory=Thoughts)
    choices: tuple[Choice, ...] = ()
    least: int = 0  # new tokens


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


@dataclass(slots=True)
class Conversation:
    """The messages so far, and the cache that goes from turn to turn. `last` is there while its answer is the last
    message."""

    engine: Engine
    tokenizer: Tokenizer
    template: ChatTemplate
    messages: tuple[Message, ...] = ()
    cache: KVCache | None = None
    last: Answer | None = None

    @property
    def tags(self) -> Tags:
        return tags_of(self.template.source, self.tokenizer)

    def ask(self, text: str) -> Turn:
        """The turn that one more message of the user begins. Raises TemplateError."""
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
        """The turn in which the last answer goes on where it stopped. Raises PromptError where there is none.

        After an end token there is one more token at least. An answer that was loaded, or that a stop string cut, is
        read anew; any other goes on from the very tokens that it consists of.
        """
        if not self.messages or self.messages[-1].role != "assistant":
            raise PromptError("there is no answer to go on with")
        messages, last = self.messages[:-1], self.last
        if last is not None and last.reason != "stop":
            least = 1 if last.reason == "eos" else 0
            choices = last.choices[:-1] if last.reason == "eos" else last.choices
            return Turn(messages, last.token_ids, last.thoughts, choices, least)
        said, thought = self.messages[-1].content, self.messages[-1].fields.get("reasoning_content")
        if not isinstance(said, str):
            raise PromptError("the last answer is not plain text, and cannot go on")
        prompt_ids = self.template.encode(messages, self.tokenizer, said, is_generated=True)
        return Turn(messages, prompt_ids, Thoughts.over(said, thought if isinstance(thought, str) else "", self.tags))

    def reuse(self, prompt_ids: Sequence[int], planned_length: int | None = None) -> int:
        """Cut the cache back to what it shares with a prompt; the positions that need no computing.

        The last position of the prompt is always computed: its logits are the first token's. Nothing is shared where
        a run of `planned_length` needs other rotary factors than the turns before it.
        """
        if self.cache is None or not self.cache.serves(planned_length):
            self.cache = self.engine.new_cache(planned_length=planned_length)
        return self.cache.keep_prefix(0, prompt_ids[:-1])

    def answer(self, turn: Turn, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        """Decode an answer; when it is finished, it and what it answers are the conversation.

        `request` holds the prompt of the turn. An answer that an error ends, or an interrupt before its first text,
        leaves the conversation as it was.
        """
        self.reuse(request.prompt_ids, request.planned_length(self.engine.limit))
        cache, self.cache = self.cache, None  # until it is finished: what is broken off in a pass may be half written
        thoughts, choices, has_text = copy(turn.begun), list(turn.choices), False
        for record in decode(Job(self.engine, self.tokenizer, request, interrupt, cache)):
            has_text = has_text or bool(record.text)
            if isinstance(record, Step):
                if record.rewound_to is not None:
                    choices = [choice for choice in choices if choice.position < record.rewound_to]
                choices += record.settled
            thoughts.add(record.text, settled_ids(record))
            if isinstance(record, Finish):
                self.cache = cache
                if record.reason != "error" and (record.reason != "interrupt" or has_text):
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

    def _turn(self, messages: tuple[Message, ...]) -> Turn:
        prompt_ids = self.template.encode(messages, self.tokenizer)
        return Turn(messages, prompt_ids, Thoughts.behind(prompt_ids, self.tags, self.tokenizer))

    def _check(self, messages: tuple[Message, ...]) -> None:
        """Raises TemplateError where the template has no place for them."""
        is_open = bool(messages) and messages[-1].role not in ("assistant", "system", "developer")
        self.template.encode(messages if is_open else (*messages, Message("user", "?")), self.tokenizer)

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

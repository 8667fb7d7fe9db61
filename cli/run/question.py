"""From a prompt and the options of choose to what a chooser is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenglass.cli.run.json_prompt import Prompt, read_prompt
from tokenglass.cli.say import say
from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.loaded_model import OpenedModel
from tokenglass.model.measuring.choosing import Choosing, Encode, mean_of
from tokenglass.model.measuring.rotations import rotations
from tokenglass.model.sources.server.served_text import ServedText
from tokenglass.model.text.chat import ChatTemplate, Message, parse_messages

ROOM = 256  # tokens that a template and an answer may add


class Chooses(Protocol):
    def choose(self, encode: Encode, answers: Sequence[str], *, prior: tuple[int, ...] | None = None) -> Choosing:
        """The answers behind a prompt; `prior` are the ids of an empty one. Raises TokenglassError."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How questions are put: as text, or as a chat; in one order, or in all."""

    chat: bool = False
    system: str | None = None
    rotate: bool = False
    prior: bool = False


@dataclass(frozen=True, slots=True)
class Asking(ABC):
    """Questions that are put to a model."""

    manner: Manner

    @property
    @abstractmethod
    def name(self) -> str:
        """The model's."""

    @abstractmethod
    def encoder(self, prompt: Prompt) -> Encode:
        """The way to the token ids of this prompt and what an answer begins with. Raises TokenglassError."""

    def conversation(self, prompt: Prompt) -> tuple[Message, ...]:
        """The messages before an answer; none where the prompt is a text. Raises ParameterError."""
        if isinstance(prompt, str) and not self.manner.chat:
            if self.manner.system is not None:
                raise ParameterError("--system is part of a chat; add --chat")
            return ()
        messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        return messages if self.manner.system is None else (Message("system", self.manner.system), *messages)

    def ask(self, chooser: Chooses, prompt: Prompt, answers: Sequence[str]) -> Choosing:
        """The answers to one prompt, weighed. Raises ParameterError, PromptError, TemplateError."""
        if not prompt:
            raise PromptError("the prompt is empty; give it with -p, or on stdin")
        prompts: Sequence[Prompt] = [prompt]
        if self.manner.rotate:
            if not isinstance(prompt, str):
                raise ParameterError("--rotate turns a list in a text; messages are not turned")
            prompts = rotations(prompt, answers)
        prior = self.encoder("")("") if self.manner.prior else None
        choosing = mean_of([chooser.choose(self.encoder(each), answers, prior=prior) for each in prompts])
        for answer in choosing.apart:
            say(f"note: the tokenizer would join the prompt's end and {quote(answer)}; they are cut apart here")
        return choosing


@dataclass(frozen=True, slots=True)
class LocalAsking(Asking):
    """A model that is here."""

    opened: OpenedModel
    _template: list[ChatTemplate] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.opened.name

    def encoder(self, prompt: Prompt) -> Encode:
        tokenizer, messages = self.opened.tokenizer, self.conversation(prompt)
        if isinstance(prompt, str) and not messages:
            return lambda answer: tokenizer.encode(prompt + answer)
        if not self._template:
            self._template.append(ChatTemplate.from_folder(self.opened.checkpoint.folder))
        return lambda answer: self._template[0].encode(messages, tokenizer, begun=answer)

    def length(self, source: str) -> int:
        """About how many tokens a prompt takes: those of the text, and some for a template and the answers."""
        return len(self.opened.tokenizer.encode(source)) + ROOM


@dataclass(frozen=True, slots=True)
class ServedAsking(Asking):
    """A model behind a server."""

    served: ServedText

    @property
    def name(self) -> str:
        return self.served.server.name

    def encoder(self, prompt: Prompt) -> Encode:
        text = self.served.server.text_of(self.conversation(prompt) or prompt)
        if not isinstance(text, str):
            raise ParameterError(
                f"--chat: {self.served.server.api.name} does not tell a chat's text; give it as the prompt"
            )
        return lambda answer: self.served.encode(text + answer)


def read_prompt_or_messages(source: str, *, chat: bool) -> Prompt:
    """A conversation where a chat's prompt is a JSON list, else the text itself. Raises ParameterError."""
    return parse_messages(source) if chat and source.lstrip().startswith("[") else source


def read_question(content: dict[str, Any], answers: Sequence[str]) -> tuple[Prompt, tuple[str, ...]]:
    """One line of --jsonl; `answers` where it has none of its own. Raises ParameterError."""
    own = content.get("answers")
    own = list(answers) if own is None else own
    if not isinstance(own, list) or not all(isinstance(answer, str) for answer in own):
        raise ParameterError(f"answers is {quote(own)}; expected a list of texts")
    return read_prompt(content), tuple(own)

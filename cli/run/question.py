"""From a prompt and the options of choose to what a chooser is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenglass.cli.run.json_prompt import Prompt, read_prompt
from tokenglass.cli.say import say
from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.loading import OpenedModel
from tokenglass.model.measuring.choosing import Chooser, Choosing, Encode, mean_of
from tokenglass.model.measuring.rotations import rotations
from tokenglass.model.text.chat import ChatTemplate, Message, parse_messages

ROOM = 256  # tokens that a template and an answer may add


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are put to a model: as text, or as a chat; in one order, or in all."""

    opened: OpenedModel
    chat: bool = False
    system: str | None = None
    rotate: bool = False
    prior: bool = False
    _template: list[ChatTemplate] = field(default_factory=list)

    def encoder(self, prompt: Prompt) -> Encode:
        """The way to the token ids of this prompt and what an answer begins with. Raises PromptError."""
        tokenizer = self.opened.tokenizer
        if isinstance(prompt, str) and not self.chat:
            if self.system is not None:
                raise ParameterError("--system is part of a chat; add --chat")
            return lambda answer: tokenizer.encode(prompt + answer)
        messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        opening = () if self.system is None else (Message("system", self.system),)
        if not self._template:
            self._template.append(ChatTemplate.from_folder(self.opened.checkpoint.folder))
        return lambda answer: self._template[0].encode((*opening, *messages), tokenizer, begun=answer)

    def length(self, source: str) -> int:
        """About how many tokens a prompt takes: those of the text, and some for a template and the answers."""
        return len(self.opened.tokenizer.encode(source)) + ROOM

    def ask(self, chooser: Chooser, prompt: Prompt, answers: Sequence[str]) -> Choosing:
        """The answers to one prompt, weighed. Raises ParameterError, PromptError, TemplateError."""
        if not prompt:
            raise PromptError("the prompt is empty; give at least one character")
        prompts: Sequence[Prompt] = [prompt]
        if self.rotate:
            if not isinstance(prompt, str):
                raise ParameterError("--rotate turns a list in a text; messages are not turned")
            prompts = rotations(prompt, answers)
        prior = self.encoder("")("") if self.prior else None
        found = mean_of([chooser.choose(self.encoder(each), answers, prior=prior) for each in prompts])
        for answer in found.apart:
            say(f"note: the tokenizer would join the prompt's end and {quote(answer)}; they are cut apart here")
        return found


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

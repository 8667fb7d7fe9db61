"""Chat: a checkpoint's own template turned into token ids, with a user's text kept apart from control."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenglass.model.config.fields import first_few, quote, shown_name
from tokenglass.model.errors import ParameterError, TemplateError, TokenglassError
from tokenglass.model.files import read_text
from tokenglass.model.text.chat_names import encode_hidden, hide_names, texts_of
from tokenglass.model.text.chat_process import TemplateProcess
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.text.tokenizer_config import TokenizerConfig

__all__ = ["ChatTemplate", "Message", "TemplateError", "parse_messages"]

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "observation", "document")
OURS = ("system", "developer", "assistant")  # what they say may hold control tokens: whoever runs this wrote it
MAX_TEMPLATE = 2**20  # characters
Content = str | list[Any] | None


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `fields` is all of it, as a template sees it: role and content, and further keys."""

    role: str
    content: Content = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    is_generated: bool = False  # a model wrote it, and may have been told to write names of special tokens

    def __post_init__(self) -> None:
        if not self.fields:
            object.__setattr__(self, "fields", {"role": self.role, "content": self.content})

    @property
    def is_said(self) -> bool:
        """Whether names of special tokens in it are text."""
        return self.is_generated or self.role not in OURS


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The template of a checkpoint, the names of its special tokens, and the process that renders it."""

    source: str
    variables: Mapping[str, str]
    process: TemplateProcess = field(default_factory=TemplateProcess, compare=False, repr=False)

    @staticmethod
    def from_folder(folder: Path) -> ChatTemplate:
        """The template files, else chat_template of tokenizer_config.json. Raises TemplateError, TokenizerError."""
        config = TokenizerConfig.from_folder(folder)
        templates: Mapping[str, str | Path] = _files(folder) or _stored_templates(config.chat_template, folder)
        if not templates:
            raise TemplateError(
                f"{folder.name} has no chat template, so it is not a chat model; use generate without --chat"
            )
        if "default" not in templates:
            names = first_few(sorted(map(shown_name, templates)))
            raise TemplateError(f"{folder.name} has chat templates ({names}), but none is called default")
        source = templates["default"]
        if isinstance(source, Path):
            source = read_text(source, 4 * MAX_TEMPLATE, TemplateError)
        if len(source) > MAX_TEMPLATE:
            raise TemplateError(f"{folder.name}: a chat template of {len(source):,} characters is refused")
        return ChatTemplate(source, config.named)

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation up to where the assistant answers. Raises TemplateError, in bounded time and memory."""
        return self._render([message.fields for message in messages])

    def encode(
        self, messages: Sequence[Message], tokenizer: Tokenizer, begun: str = "", *, is_generated: bool = False
    ) -> tuple[int, ...]:
        """Token ids of the rendered conversation, and of an answer that is `begun` already.

        The template's special tokens are control, and so are those of the system's messages and of answers that were
        given; in what a user, a tool or a model said they are text, in `begun` where it `is_generated`.
        Raises TemplateError, TokenizerError, PromptError.
        """
        said = [message.fields for message in messages if message.is_said]
        others = [self.source, begun, *self.variables.values(), *texts_of([m.fields for m in messages])]
        if is_generated:
            said.append({"content": begun})
        said, originals = hide_names(said, tokenizer, others)
        if is_generated:
            begun = str(said.pop()["content"])
        hidden = iter(said)
        rendered = self._render([next(hidden) if message.is_said else message.fields for message in messages])
        return encode_hidden(rendered + begun, originals, tokenizer)

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        return self.process.render(self.source, messages, self.variables)


def has_template(folder: Path) -> bool:
    """Whether a checkpoint is a chat model that can be used."""
    try:
        ChatTemplate.from_folder(folder)
    except TokenglassError:
        return False
    return True


def parse_messages(text: str) -> tuple[Message, ...]:
    """A conversation as a JSON list of {"role": ..., "content": ...}. Raises ParameterError."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"the messages are not valid JSON ({error})") from None
    if not isinstance(items, list) or not items:
        raise ParameterError('the messages are not a JSON list; expected [{"role": "user", "content": "..."}, ...]')
    return tuple(_message(item, number) for number, item in enumerate(items, start=1))


def _message(item: Any, number: int) -> Message:
    if not isinstance(item, dict):
        raise ParameterError(f"message {number} is {quote(item)}; expected an object with role and content")
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise ParameterError(f"message {number} has the role {quote(role)}; expected one of {', '.join(ROLES)}")
    if isinstance(content, list):
        for part in content:
            _check_part(part, number)
    elif not isinstance(content, str) and not (content is None and _says_otherwise(item)):
        raise ParameterError(f"message {number} needs a content that is text, or a list of parts that are text")
    try:
        json.dumps(item, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ParameterError(f"message {number} holds half a surrogate pair, which is no text") from None
    return Message(role, content, item)


def _says_otherwise(item: Mapping[str, Any]) -> bool:
    """Whether a message without content says something: a call of a tool, or a thought."""
    return any(item.get(key) for key in ("tool_calls", "function_call", "reasoning_content", "thinking", "reasoning"))


def _check_part(part: Any, number: int) -> None:
    kind = part.get("type") if isinstance(part, dict) else part
    if kind != "text":
        raise ParameterError(f"message {number} has a part of the type {quote(kind)}; only text is read here")
    if not isinstance(part.get("text"), str):
        raise ParameterError(f"message {number} has a part without a text")


def _files(folder: Path) -> dict[str, Path]:
    """chat_template.jinja as the default, and additional_chat_templates/NAME.jinja."""
    single = folder / "chat_template.jinja"
    further = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    return {"default": single, **further} if single.exists() else further


def _stored_templates(stored: Any, folder: Path) -> dict[str, str]:
    """chat_template of tokenizer_config.json: one, or several by name."""
    if stored is None or isinstance(stored, str):
        return {} if stored is None else {"default": stored}
    wrong = TemplateError(f"{folder.name}: chat_template is neither a text nor a list of templates with names")
    if isinstance(stored, list):
        items = [item if isinstance(item, dict) else {} for item in stored]
        pairs = [(item.get("name"), item.get("template")) for item in items]
    elif isinstance(stored, dict):
        pairs = list(stored.items())
    else:
        raise wrong
    named = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if len(named) < len(pairs):
        raise wrong
    return named

"""Chat: a checkpoint's own template turned into token ids, with a user's text kept apart from control."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from model.errors import ParameterError, TokenglassError
from model.files import MAX_TOKENIZER_CONFIG, read_json, read_text
from model.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")
Role = Literal["system", "user", "assistant"]
MARK = "\ufdd0"  # a code point that no text holds: it keeps a special token's name in a message from being read as one
SECONDS = 10
MAX_TEXT = 16 * 2**20  # characters that a template may make
MAX_TEMPLATE = 2**20


class TemplateError(TokenglassError):
    """There is no chat template, or it cannot be used."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The template of a checkpoint and the names of its special tokens."""

    source: str
    variables: dict[str, str]

    @staticmethod
    def from_folder(folder: Path) -> ChatTemplate:
        """chat_template.jinja, else chat_template of tokenizer_config.json. Raises TemplateError."""
        config_path = folder / "tokenizer_config.json"
        config = read_json(config_path, MAX_TOKENIZER_CONFIG) if config_path.exists() else {}
        source = _stored(folder, config)
        if source is None:
            raise TemplateError(
                f"{folder.name} has no chat template, so it is not a chat model; use generate without --chat"
            )
        if len(source) > MAX_TEMPLATE:
            raise TemplateError(f"{folder.name}: a chat template of {len(source):,} characters is refused")
        names = {key: _content(config.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
        return ChatTemplate(source, {key: name for key, name in names.items() if name is not None})

    def render(self, messages: tuple[Message, ...]) -> str:
        """The conversation up to where the assistant answers. Raises TemplateError, in bounded time and memory."""
        job = {
            "template": self.source,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "variables": self.variables,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "model.chat_render"],  # -P: not what lies in the current folder
                input=json.dumps(job).encode(),
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TemplateError(f"the chat template did not end within {SECONDS} seconds") from None
        if done.returncode:
            told = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = told[-1] if done.returncode > 0 and told else "it ran too long or took too much memory"
            raise TemplateError(f"the chat template failed: {reason}")
        text = done.stdout.decode("utf-8")
        if len(text) > MAX_TEXT:
            raise TemplateError(f"the chat template made {len(text):,} characters, more than {MAX_TEXT:,}")
        return text

    def encode(self, messages: tuple[Message, ...], tokenizer: Tokenizer, begun: str = "") -> tuple[int, ...]:
        """Token ids of the rendered conversation, and of an answer that is `begun` already.

        The template's special tokens are control, a message's and the answer's are text.
        """
        guarded = tuple(Message(m.role, guard(m.content, tokenizer.special_tokens)) for m in messages)
        parts = (self.render(guarded) + guard(begun, tokenizer.special_tokens)).split(MARK)
        return tuple(token_id for part in parts for token_id in tokenizer.encode_bare(part))


def guard(content: str, special_tokens: tuple[str, ...]) -> str:
    """A message whose names of special tokens are broken by MARK after their first character."""
    content = content.replace(MARK, "")
    for name in special_tokens:
        content = content.replace(name, name[:1] + MARK + name[1:])
    return content


def parse_messages(text: str) -> tuple[Message, ...]:
    """A conversation as a JSON list of {"role": ..., "content": ...}. Raises ParameterError."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"the messages are not valid JSON ({error})") from None
    if not isinstance(items, list) or not items:
        raise ParameterError("the messages are not a JSON list; expected [{'role': 'user', 'content': '...'}, ...]")
    return tuple(_message(item, number) for number, item in enumerate(items, start=1))


def _message(item: Any, number: int) -> Message:
    role, content = (item.get("role"), item.get("content")) if isinstance(item, dict) else (None, None)
    if role not in ROLES or not isinstance(content, str):
        raise ParameterError(f"message {number} needs a role ({', '.join(ROLES)}) and a content that is text")
    return Message(cast(Role, role), content)


def _stored(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return read_text(path, 4 * MAX_TEMPLATE, TemplateError)
    stored = config.get("chat_template")
    if isinstance(stored, list):  # several, by name
        named = [item for item in stored if isinstance(item, dict) and item.get("name") == "default"]
        stored = named[-1].get("template") if named else None
    return stored if isinstance(stored, str) else None


def _content(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None

"""What a line of JSON calls itself, and what it asks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ParameterError
from tokenglass.model.text.chat import Message, parse_messages

Prompt = str | tuple[Message, ...]


def read_id(content: Mapping[str, Any]) -> str | int | float | None:
    """What a line calls itself. Raises ParameterError."""
    value = content.get("id")
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise ParameterError(f"id is {quote(value)}; expected a text or a number")
    return value


def read_prompt(content: Mapping[str, Any]) -> Prompt:
    """Raises ParameterError."""
    prompt, messages = content.get("prompt"), content.get("messages")
    if (prompt is None) == (messages is None):
        raise ParameterError("expected either a prompt or messages")
    if messages is not None:
        return parse_messages(json.dumps(messages))
    if not isinstance(prompt, str):
        raise ParameterError(f"prompt is {quote(prompt)}; expected a text")
    return prompt

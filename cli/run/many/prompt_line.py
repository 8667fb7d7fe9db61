"""One line of many prompts: what it asks, and with which options of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenglass.cli.run.json_prompt import Prompt, read_id, read_prompt
from tokenglass.cli.run.numbered_lines import check_line
from tokenglass.cli.run.prompt import decode
from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ParameterError, TokenglassError
from tokenglass.model.files import parse_json

NOT_OPTIONS = ("id", "prompt", "messages", "seed")


@dataclass(frozen=True, slots=True)
class PromptLine:
    """A text or a conversation, the seed where the line has one, and its options by their names.

    Where the line has no id of its own, that is its number. `error` is why it cannot be read.
    """

    id: str | int | float
    line: int
    prompt: Prompt = ""
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    error: TokenglassError | None = None


def read_text_line(number: int, line: bytes) -> PromptLine:
    """A line that is the prompt."""
    try:
        return PromptLine(number, number, decode(check_line(line), "it", keep_newline=False))
    except TokenglassError as error:
        return PromptLine(number, number, error=error)


def read_json_line(number: int, line: bytes) -> PromptLine:
    """A line of JSON that holds it."""
    line_id: str | int | float = number
    try:
        content = parse_json(check_line(line), "it", ParameterError)
        own = read_id(content)
        line_id = number if own is None else own
        options = {name: value for name, value in content.items() if name not in NOT_OPTIONS}
        return PromptLine(line_id, number, read_prompt(content), read_seed(content), options)
    except TokenglassError as error:
        return PromptLine(line_id, number, error=error)


def read_seed(content: Mapping[str, Any]) -> int | None:
    """Raises ParameterError."""
    seed = content.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64):
        raise ParameterError(f"seed is {quote(seed)}; expected a whole number between 0 and 2^64 - 1")
    return seed

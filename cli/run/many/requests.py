"""From the lines of many prompts to their requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.prompt import PromptOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.run.many.prompt_line import PromptLine
from tokenglass.cli.run.request import build_request, encode_chat, encode_text, fit, heal_prompt, lengths
from tokenglass.cli.run.settings import change_all
from tokenglass.model.config.fields import quote
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.loaded_model import OpenedModel
from tokenglass.model.records.codec import to_dict
from tokenglass.model.runs.answers import derive_seed
from tokenglass.model.text.chat import ChatTemplate, Message

ALIKE = 64  # sets of options that are kept as they were read: most lines have the same
FILES = ("grammar", "show_chain")  # a line reads no file, and prints nothing


@dataclass(frozen=True, slots=True)
class Base:
    """What all lines with the same options have in common; `request` has no prompt yet."""

    control: ControlOptions
    request: Request


class Requests:
    """Builds the request of each line. The options of the command are those of a line that has none of its own."""

    def __init__(
        self,
        opened: OpenedModel,
        prompt: PromptOptions,
        control: ControlOptions,
        sampling: SamplingOptions,
        model: ModelOptions,
        top: int,
    ):
        """Raises ParameterError."""
        self._opened = opened
        self._prompt = prompt
        self._control = control
        self._sampling = sampling
        self._model = model
        self._top = top
        self._template: ChatTemplate | None = None
        self._base = lru_cache(ALIKE)(self._read_options)
        self.base = build_request(opened, (0,), control, sampling, model, top, chat=prompt.chat)
        if self.base.constraint is not None:
            self.base.constraint.check()

    def settings(self) -> dict[str, Any]:
        """All that decides the texts but for the model, the prompts and the seed, as JSON values."""
        prompt = self._prompt
        asked = {name: getattr(prompt, name) for name in ("chat", "heal", "truncate", "system", "prefill_response")}
        decided_elsewhere = ("prompt_ids", "seed", "prefill_chunk", "use_cache")
        request = {name: value for name, value in to_dict(self.base).items() if name not in decided_elsewhere}
        return {"prompt": asked, "request": request}

    def read(self, asked: PromptLine, run_seed: int) -> Request:
        """The request of a line. Raises ParameterError, PromptError, TemplateError, TokenizerError."""
        is_chat = self._prompt.chat or not isinstance(asked.prompt, str)
        base = self._base(json.dumps(asked.options, sort_keys=True), is_chat)
        prompt_ids = fit(self._opened, self._encode(asked.prompt), base.control, self._prompt.truncate)
        most, least = lengths(self._opened, base.control, len(prompt_ids))
        seed = derive_seed(run_seed, asked.id) if asked.seed is None else asked.seed
        request = replace(base.request, prompt_ids=prompt_ids, seed=seed, max_new_tokens=most, min_new_tokens=least)
        return heal_prompt(request, self._opened.tokenizer) if self._prompt.heal else request

    def _encode(self, prompt: str | tuple[Message, ...]) -> tuple[int, ...]:
        if not prompt:
            raise PromptError("the prompt is empty; give at least one character")
        if isinstance(prompt, str) and not self._prompt.chat:
            return encode_text(self._opened, prompt, self._prompt)
        if self._template is None:
            self._template = ChatTemplate.from_folder(self._opened.checkpoint.folder)
        messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        return encode_chat(self._opened, messages, self._prompt, self._template)

    def _read_options(self, options: str, is_chat: bool) -> Base:
        """Raises ParameterError."""
        control, sampling = read_options(json.loads(options), self._control, self._sampling)
        request = build_request(
            self._opened, (0,), control, sampling, self._model, self._top, chat=is_chat, notes=False
        )
        if request.constraint is not None:
            request.constraint.check()
        return Base(control, request)


def read_options(
    options: Mapping[str, Any], control: ControlOptions, sampling: SamplingOptions
) -> tuple[ControlOptions, SamplingOptions]:
    """The options of a line, by the names that the command line has, over those of the command. Raises
    ParameterError."""
    sampling = replace(sampling, show_chain=False)
    if not options:
        return control, sampling
    arguments: list[str] = []
    for name, value in options.items():
        if name in FILES:
            raise ParameterError(f"{name} is no option of a line; give it to the command")
        arguments += arguments_of(name, value)
    return change_all(arguments, control, sampling, "a line has id, prompt or messages, and options of generate")


def arguments_of(name: str, value: Any) -> list[str]:
    """A JSON value as the command line has it. Raises ParameterError."""
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return []
    if value is True:
        return [flag]
    if name == "json_schema":
        if not isinstance(value, dict):
            raise ParameterError(f"json_schema is {quote(value)}; expected an object")
        value = json.dumps(value)
    items = value if isinstance(value, list) else [value]
    if value is False or not all(isinstance(item, str | int | float) for item in items):
        raise ParameterError(f"{name} is {quote(value)}; expected a value as on the command line, or a list of them")
    return [f"{flag}={item}" for item in items]

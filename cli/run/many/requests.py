"""From the lines of many prompts to their requests."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.prompt import PromptOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.run.json_prompt import Prompt
from tokenglass.cli.run.many.prompt_line import PromptLine
from tokenglass.cli.run.settings import change_all
from tokenglass.model.config.fields import quote
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.codec import to_dict
from tokenglass.model.runs.answers import derive_seed

ALIKE = 64  # sets of options that are kept as they were read: most lines have the same
FILES = ("grammar", "show_chain")  # a line reads no file, and prints nothing


@dataclass(frozen=True, slots=True)
class Base:
    """What all lines with the same options have in common; `request` has no prompt yet."""

    control: ControlOptions
    request: Request


class Requests(ABC):
    """Builds the request of each line. The options of the command are those of a line that has none of its own."""

    most_seed = 2**64 - 1

    def __init__(self, prompt: PromptOptions, control: ControlOptions, sampling: SamplingOptions):
        """Raises ParameterError."""
        self.prompt = prompt
        self._control = control
        self._sampling = sampling
        self._base = lru_cache(ALIKE)(self._read_options)
        self.base = self.build(control, sampling, chat=prompt.chat, notes=True)

    @abstractmethod
    def build(self, control: ControlOptions, sampling: SamplingOptions, *, chat: bool, notes: bool = False) -> Request:
        """What the options ask for, without a prompt; `notes` tell what is not applied. Raises ParameterError."""

    @abstractmethod
    def put(self, prompt: Prompt, control: ControlOptions, request: Request) -> Request:
        """The request with a prompt. Raises ParameterError, PromptError, TemplateError, TokenizerError."""

    def settings(self) -> dict[str, Any]:
        """All that decides the texts but for the model, the prompts and the seed, as JSON values."""
        prompt = self.prompt
        asked = {name: getattr(prompt, name) for name in ("chat", "heal", "truncate", "system", "prefill_response")}
        decided_elsewhere = ("prompt_ids", "seed", "prefill_chunk", "use_cache")
        request = {name: value for name, value in to_dict(self.base).items() if name not in decided_elsewhere}
        return {"prompt": asked, "request": request}

    def read(self, asked: PromptLine, run_seed: int) -> Request:
        """The request of a line. Raises ParameterError, PromptError, TemplateError, TokenizerError."""
        is_chat = self.prompt.chat or not isinstance(asked.prompt, str)
        base = self._base(json.dumps(asked.options, sort_keys=True), is_chat)
        seed = derive_seed(run_seed, asked.id) % (self.most_seed + 1) if asked.seed is None else asked.seed
        if seed > self.most_seed:
            raise ParameterError(f"seed is {seed}; this server takes seeds up to {self.most_seed}")
        return self.put(asked.prompt, base.control, replace(base.request, seed=seed))

    def _read_options(self, options: str, is_chat: bool) -> Base:
        """Raises ParameterError."""
        control, sampling = read_options(json.loads(options), self._control, self._sampling)
        return Base(control, self.build(control, sampling, chat=is_chat))


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

"""Many prompts of a model that is here: continuous batching over its engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.run import session
from tokenglass.cli.run.json_prompt import Prompt
from tokenglass.cli.run.many.options import ManyRunOptions
from tokenglass.cli.run.many.prompt_line import PromptLine
from tokenglass.cli.run.many.requests import Requests
from tokenglass.cli.run.many.room import count_slots, free_positions, least_caches
from tokenglass.cli.run.request import build_request, encode_chat, encode_text, fit, heal_prompt, lengths
from tokenglass.cli.terminal.opening import Opening
from tokenglass.model.decoding.batch import Batch
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.prompts import Prompts
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.errors import PromptError, TokenglassError
from tokenglass.model.loaded_model import LoadedModel, OpenedModel
from tokenglass.model.records.steps import Record
from tokenglass.model.text.chat import ChatTemplate, Message


def open_local(options: ManyRunOptions, opening: Opening) -> LocalMany:
    """The model that -m names, in memory. Raises TokenglassError."""
    control, slots, chunk = options.control, options.many.slots, options.passes.prefill_chunk
    opened = session.open_model(options.model, opening)
    requests = LocalRequests(opened, options)
    loaded = session.load(opened, least_caches(opened, control, slots), opening)
    room = free_positions(loaded, slots)
    return LocalMany(loaded, requests, slots or count_slots(loaded, control, room), room, chunk)


class LocalRequests(Requests):
    """Requests in the tokens of a model that is here."""

    def __init__(self, opened: OpenedModel, options: ManyRunOptions):
        """Raises ParameterError."""
        self._opened = opened
        self._passes = options.passes
        self._top = options.view.candidates or 0
        self._template: ChatTemplate | None = None
        super().__init__(options.prompt, options.control, options.sampling)

    def build(self, control: ControlOptions, sampling: SamplingOptions, *, chat: bool, notes: bool = False) -> Request:
        opened, passes, top = self._opened, self._passes, self._top
        request = build_request(opened, (0,), control, sampling, passes, top, chat=chat, notes=notes)
        if request.constraint is not None:
            request.constraint.check()
        return request

    def put(self, prompt: Prompt, control: ControlOptions, request: Request) -> Request:
        prompt_ids = fit(self._opened, self._encode(prompt), control, self.prompt.truncate)
        most, least = lengths(self._opened, control, len(prompt_ids))
        request = replace(request, prompt_ids=prompt_ids, max_new_tokens=most, min_new_tokens=least)
        return heal_prompt(request, self._opened.tokenizer) if self.prompt.heal else request

    def _encode(self, prompt: Prompt) -> tuple[int, ...]:
        if not prompt:
            raise PromptError("the prompt is empty; give at least one character")
        if isinstance(prompt, str) and not self.prompt.chat:
            return encode_text(self._opened, prompt, self.prompt)
        if self._template is None:
            self._template = ChatTemplate.from_folder(self._opened.checkpoint.folder)
        messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        return encode_chat(self._opened, messages, self.prompt, self._template)


@dataclass(frozen=True, slots=True)
class LocalMany:
    """A loaded model, at most `slots` texts at once, which plan for at most `room` positions; passes read prompts by
    `chunk` positions."""

    loaded: LoadedModel
    requests: LocalRequests
    slots: int
    room: int | None
    chunk: int

    @property
    def name(self) -> str:
        return self.loaded.name

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.loaded.cache_identity

    def begin(self, _: PromptLine, request: Request) -> Sequence:
        return Job.of(self.loaded, request).new_sequence()

    def records(
        self, prompts: Prompts[Sequence], interrupt: Interrupt, failures: dict[int, TokenglassError]
    ) -> Iterator[Record]:
        engine = self.loaded.engine
        return Batch(engine, prompts, self.slots, interrupt, failures, room=self.room, chunk=self.chunk).records()

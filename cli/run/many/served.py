"""Many prompts of a server, which batches them itself: so many requests at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.run.json_prompt import Prompt
from tokenglass.cli.run.many.options import ManyRunOptions
from tokenglass.cli.run.many.prompt_line import PromptLine
from tokenglass.cli.run.many.requests import Requests
from tokenglass.cli.run.remote import HONOURED, build_request, open_server, refuse_others, tell_limit, with_system
from tokenglass.cli.terminal.opening import Opening
from tokenglass.model.decoding.prompts import Prompts
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import TokenglassError
from tokenglass.model.records.steps import Record
from tokenglass.model.sources.concurrent import ConcurrentTexts, SourceText
from tokenglass.model.sources.server.probe import Server
from tokenglass.model.sources.server.source import PromptSource


def open_served(options: ManyRunOptions, opening: Opening) -> ServedMany:
    """The server that -m names. Raises TokenglassError."""
    for name in ("prompt", "control", "view", "model", "passes"):
        refuse_others(getattr(options, name), HONOURED[name])
    server, view = open_server(options.model, opening), options.view
    if view.candidates is not None:
        tell_limit(server, () if options.prompt.chat else "", view.candidates, view)
    slots = options.many.slots or server.count_slots()
    return ServedMany(server, ServedRequests(server, options), slots, has_choices=view.candidates is not None)


class ServedRequests(Requests):
    """Requests to a server, whose prompts are read when their turn comes."""

    def __init__(self, server: Server, options: ManyRunOptions):
        """Raises ParameterError."""
        self._server = server
        self._top = options.view.candidates or 0
        self.most_seed = server.api.most_seed
        super().__init__(options.prompt, options.control, options.sampling)

    def build(self, control: ControlOptions, sampling: SamplingOptions, **_: bool) -> Request:
        refuse_others(control, HONOURED["control"])
        return build_request(self._server, control, sampling, self._top)

    def put(self, prompt: Prompt, _: ControlOptions, request: Request) -> Request:
        with_system(prompt, self.prompt)
        return request


@dataclass(frozen=True, slots=True)
class ServedMany:
    """A server that is asked for at most `slots` texts at once, with log-probabilities where it `has_choices`."""

    server: Server
    requests: ServedRequests
    slots: int
    has_choices: bool

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"server": self.server.api.name, "model": self.server.model}

    def begin(self, asked: PromptLine, request: Request) -> SourceText:
        prompt = with_system(asked.prompt, self.requests.prompt)
        return SourceText(PromptSource(self.server, prompt, self.has_choices), request)

    def records(
        self, prompts: Prompts[SourceText], interrupt: Interrupt, failures: dict[int, TokenglassError]
    ) -> Iterator[Record]:
        return ConcurrentTexts(prompts, self.slots, interrupt, failures).records()

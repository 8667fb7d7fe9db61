"""Many prompts of a server, which batches them itself: so many requests at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.model import ServedModelOptions
from tokenglass.cli.options.prompt import PromptOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.view import ViewOptions
from tokenglass.cli.run.json_prompt import Prompt
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


def open_served(
    prompt: PromptOptions,
    control: ControlOptions,
    sampling: SamplingOptions,
    view: ViewOptions,
    model: ServedModelOptions,
    slots: int | None,
    opening: Opening,
) -> ServedMany:
    """The server that -m names. Raises TokenglassError."""
    for name, group in (("prompt", prompt), ("control", control), ("view", view), ("model", model)):
        refuse_others(group, HONOURED[name])
    server = open_server(model, opening)
    if view.candidates is not None:
        tell_limit(server, () if prompt.chat else "", view.candidates, view)
    requests = ServedRequests(server, prompt, control, sampling, view.candidates or 0)
    return ServedMany(server, requests, slots or server.count_slots(), has_choices=view.candidates is not None)


class ServedRequests(Requests):
    """Requests to a server, whose prompts are read when their turn comes."""

    def __init__(
        self, server: Server, prompt: PromptOptions, control: ControlOptions, sampling: SamplingOptions, top: int
    ):
        """Raises ParameterError."""
        self._server = server
        self._top = top
        self.most_seed = server.api.most_seed
        super().__init__(prompt, control, sampling)

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

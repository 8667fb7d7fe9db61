"""What writes the texts of many prompts: a model that is here, or a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from tokenglass.cli.run.many.prompt_line import PromptLine
from tokenglass.cli.run.many.requests import Requests
from tokenglass.model.decoding.prompts import AnyText, Prompts
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import TokenglassError
from tokenglass.model.records.steps import Record


class ManySource(Protocol[AnyText]):
    @property
    def name(self) -> str:
        """The model's."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What of the model decides the texts, as JSON values."""

    @property
    def requests(self) -> Requests: ...

    def begin(self, asked: PromptLine, request: Request) -> AnyText:
        """The text that a line asks for, before its first token. Raises PromptError."""

    def records(
        self, prompts: Prompts[AnyText], interrupt: Interrupt, failures: dict[int, TokenglassError]
    ) -> Iterator[Record]:
        """The steps of all texts, and a Finish for each when it ends; an interrupt lets those that have begun end. A
        text that ends with an error while the others go on has it in `failures` before.

        Raises TokenglassError.
        """

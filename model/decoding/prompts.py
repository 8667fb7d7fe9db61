"""Where the texts of a batch come from, whoever writes them."""

from __future__ import annotations

from typing import Protocol, TypeVar

from tokenglass.model.decoding.request import Request


class Text(Protocol):
    """A text that is to be written; `number` tells it from the others."""

    number: int
    request: Request


AnyText = TypeVar("AnyText", bound=Text)
SomeText_co = TypeVar("SomeText_co", bound=Text, covariant=True)


class Prompts(Protocol[SomeText_co]):
    @property
    def are_left(self) -> bool:
        """Whether another may come."""

    def take(self, *, wait: bool) -> SomeText_co | None:
        """The next text, before its first new token; None where there is none yet. To `wait` is to do so for a
        moment."""

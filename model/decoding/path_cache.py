"""One cache row that follows a path through a tree; what it leaves behind is kept, and only that."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tokenglass.model.decoding.request import Request
from tokenglass.model.engine.cache import CacheTail
from tokenglass.model.engine.engine import Engine, Logits


class Place(Protocol):
    """A token at its place in a tree: the same object on every path through it."""

    @property
    def token_id(self) -> int: ...


At = TypeVar("At", bound=Place)


@dataclass(frozen=True, slots=True)
class Tail(Generic[At]):
    """The end of a path that was left, and its keys and values."""

    places: tuple[At, ...]
    cut: CacheTail

    @property
    def nbytes(self) -> int:
        return self.cut.nbytes


class PathCache(Generic[At]):
    """Logits anywhere in a tree of tokens behind one prompt; what paths have in common is computed and held once.

    `recomputed` is how many positions the last `follow` had to compute again, since a sliding window had let go of
    what they need.
    """

    def __init__(self, engine: Engine, request: Request):
        self.row = engine.new_cache(planned_length=request.planned_length(engine.limit))
        self.recomputed = 0
        self.computed, self.seconds = 0, 0.0  # positions in all, and the time that they took
        self._engine = engine
        self._prompt_ids = request.prompt_ids
        self._chunk = request.prefill_chunk
        self._held: tuple[At, ...] = ()  # the path in the row, as far as it is there
        self._tails: dict[At, Tail[At]] = {}  # by their first place

    @property
    def length(self) -> int:
        """Positions in the row."""
        return self.row.lengths[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the real tensors: all of the row, and every tail."""
        return self.row.usage().nbytes_held + self.nbytes_of_tails

    @property
    def nbytes_of_tails(self) -> int:
        return sum(tail.nbytes for tail in self._tails.values())

    def follow(self, path: Sequence[At]) -> Iterator[Logits]:
        """Logits (vocab,) after each pass, at last those after the path's end. Raises EngineError, PromptError."""
        token_ids = [*self._prompt_ids, *(place.token_id for place in path)]
        self.recomputed = 0
        self._leave(path)
        while True:
            self._take_up(path)
            if self.length == len(token_ids):  # the last position's logits were not kept
                self.row.truncate(0, self.length - 1)
                self._shorten(len(token_ids) - 1)
            end = min(self.length + self._chunk, self._next_tail(path), len(token_ids))
            started, inputs = time.perf_counter(), token_ids[self.length : end]
            logits = self._engine.forward([inputs], self.row)
            self.computed, self.seconds = self.computed + len(inputs), self.seconds + time.perf_counter() - started
            self._held = tuple(path[: max(0, end - len(self._prompt_ids))])
            yield logits[0][-1]
            if end == len(token_ids):
                return

    def _leave(self, path: Sequence[At]) -> None:
        """Cut off what the row holds of another path, and keep it."""
        shared = 0
        while shared < min(len(self._held), len(path)) and self._held[shared] is path[shared]:
            shared += 1
        if shared == len(self._held):
            return
        left, start = self._held[shared:], len(self._prompt_ids) + shared
        self._tails[left[0]] = Tail(left, self.row.detach(0, start))
        self._shorten(start)

    def _take_up(self, path: Sequence[At]) -> None:
        """Put back the tails that go on from here along the path."""
        while len(self._prompt_ids) <= self.length and len(self._held) < len(path):
            tail = self._tails.pop(path[len(self._held)], None)
            if tail is None:
                return
            self.row.attach(0, tail.cut)
            self._held += tail.places
            self._leave(path)

    def _next_tail(self, path: Sequence[At]) -> int:
        """The position where the next tail on the path begins, or the path's end."""
        held = len(self._held)
        ahead = next((k for k in range(held, len(path)) if path[k] in self._tails), len(path))
        return len(self._prompt_ids) + ahead

    def _shorten(self, expected: int) -> None:
        """Take note of a cut to `expected` positions; fewer are left where a sliding window cannot go back so far."""
        self.recomputed += expected - self.length
        self._held = self._held[: max(0, self.length - len(self._prompt_ids))]

"""An index of the runs of tokens in a growing text: where each was last, without reading the text again."""

from __future__ import annotations

from collections.abc import Sequence as Ids

Run = tuple[int, ...]


class NgramIndex:
    """The latest place of each run of at most `longest` tokens that ends before the last token of a text."""

    def __init__(self, longest: int):
        self._longest = longest
        self._ids: list[int] = []  # those that are read
        self._ends: dict[Run, int] = {}  # behind the latest place of each run
        self._before: list[list[int]] = []  # the ends that the runs of each token had before it

    def follow(self, token_ids: Ids[int]) -> None:
        """Read what is new of a text; what was taken back of it is forgotten."""
        length, known = len(token_ids) - 1, self._ids
        if known != token_ids[: min(len(known), length)]:  # one comparison by the interpreter, not a search
            pairs = zip(known, token_ids[:length], strict=False)
            same = next((place for place, (old, new) in enumerate(pairs) if old != new), min(len(known), length))
            while len(self._ids) > same:
                self._forget()
        for token_id in token_ids[len(self._ids) : length]:
            self._read(token_id)

    def latest(self, token_ids: Ids[int]) -> int:
        """The end of the latest place of the longest run that the text ends with; its length if there is none."""
        size = len(token_ids)
        for length in range(min(self._longest, size - 1), 0, -1):
            end = self._ends.get(tuple(token_ids[size - length :]))
            if end is not None:
                return end
        return size

    def _runs(self) -> list[Run]:
        """The runs that the read text ends with, shortest first."""
        size = len(self._ids)
        return [tuple(self._ids[size - length :]) for length in range(1, min(self._longest, size) + 1)]

    def _read(self, token_id: int) -> None:
        self._ids.append(token_id)
        runs = self._runs()
        self._before.append([self._ends.get(run, 0) for run in runs])
        self._ends.update(dict.fromkeys(runs, len(self._ids)))

    def _forget(self) -> None:
        """Take back the last token that was read."""
        for run, before in zip(self._runs(), self._before.pop(), strict=True):
            if before:
                self._ends[run] = before
            else:
                del self._ends[run]
        self._ids.pop()

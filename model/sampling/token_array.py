"""Token ids as an array that grows in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class TokenArray:
    """The ids of a text, for processors that look at all of them at every step. Appending costs what is appended."""

    __slots__ = ("_length", "_room")

    def __init__(self, token_ids: Sequence[int] | Ints):
        self._room: Ints = np.array(token_ids, np.int64)
        self._length = len(token_ids)

    def __len__(self) -> int:
        return self._length

    @property
    def array(self) -> Ints:
        """The ids (length,): a view that the next change may write to."""
        return self._room[: self._length]

    def append(self, token_id: int) -> None:
        if self._length == len(self._room):
            self._room = np.resize(self._room, 2 * self._length + 16)
        self._room[self._length] = token_id
        self._length += 1

    def truncate(self, length: int) -> None:
        """Forget the ids from `length` on."""
        self._length = min(self._length, length)

    def fork(self) -> TokenArray:
        return TokenArray(self.array)

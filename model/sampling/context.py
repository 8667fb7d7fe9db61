"""What a choice depends on besides the logits. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Mask:
    """What a constraint or a ban leaves possible; `name` is what a removed candidate's `removed_by` says."""

    name: str
    allowed: NDArray[np.bool_] | None = None  # (vocab,); None: everything but `removed`
    removed: tuple[int, ...] = ()


@dataclass(slots=True)  # not frozen: one is made for every token, and that takes three times as long
class Context:
    """The text so far, the key of the draw, and what else a processor may need. Masks apply in their order."""

    token_ids: Sequence[int]  # prompt and text so far
    prompt_length: int
    seed: int
    attempt: int = 0
    masks: tuple[Mask, ...] = ()
    negative: NDArray[Any] | None = None  # logits (vocab,) under the negative prompt
    spared: frozenset[int] = frozenset()  # tokens that XTC never cuts
    array: NDArray[np.int64] | None = None  # `token_ids` where they are kept as an array too

    @property
    def position(self) -> int:
        """Of the token to choose."""
        return len(self.token_ids)

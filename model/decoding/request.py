"""What one run is asked to do. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.sampling.parameters import SamplingParameters

UNKNOWN_PROMPT = (-1,)  # stands for the token ids of a prompt that a server does not tell
TruncateSide = Literal["left", "right", "middle"]


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and everything that decides how it is continued."""

    prompt_ids: tuple[int, ...]
    seed: int
    sampling: SamplingParameters = field(default_factory=SamplingParameters)
    max_new_tokens: int = 256
    eos_token_ids: frozenset[int] = frozenset()
    min_new_tokens: int = 0
    ignore_eos: bool = False
    max_seconds: float | None = None
    stops: tuple[str, ...] = ()
    bans: tuple[str, ...] = ()
    constraint: Constraint | None = None
    healed: bytes = b""  # what the last token of the prompt said, which is to be said anew
    negative_ids: tuple[int, ...] = ()
    top: int = 5  # candidates recorded per choice
    prefill_chunk: int = 256  # positions per prefill pass
    use_cache: bool = True

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise PromptError("the prompt is empty; give at least one word")
        if self.max_new_tokens < 1:
            raise ParameterError(f"max_new_tokens is {self.max_new_tokens}; expected at least 1")
        if self.min_new_tokens > self.max_new_tokens:
            raise ParameterError(
                f"min_new_tokens is {self.min_new_tokens}, more than max_new_tokens, {self.max_new_tokens}"
            )
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ParameterError(f"max_seconds is {self.max_seconds}; expected more than 0")
        if "" in (*self.stops, *self.bans):
            raise ParameterError("a stop or a ban is empty; give it at least one character")
        if self.healed and self.constraint is not None:
            raise ParameterError("healing and a constraint both decide how the text begins; leave one out")
        if not 0 <= self.seed < 2**64:
            raise ParameterError(f"seed is {self.seed}; expected between 0 and 2^64 - 1")
        if self.prefill_chunk < 1:
            raise ParameterError(f"prefill_chunk is {self.prefill_chunk}; expected at least 1")

    def planned_length(self, limit: int) -> int:
        """Positions that the run may reach in a context of `limit`."""
        return min(len(self.prompt_ids) + self.max_new_tokens, limit)


def check_length(prompt_ids: tuple[int, ...], limit: int) -> None:
    """Raises PromptError where the prompt leaves no room for one new token."""
    if len(prompt_ids) >= limit:
        raise PromptError(
            f"the prompt is {len(prompt_ids):,} tokens and the context holds {limit:,}, the new ones included; "
            "shorten it, or cut it with --truncate left, right or middle"
        )


def truncate(prompt_ids: tuple[int, ...], room: int, side: TruncateSide, keep: int = 0) -> tuple[int, ...]:
    """At most `room` ids, cut on one side or in the middle; the first `keep` (the start token) always stay."""
    if len(prompt_ids) <= room:
        return prompt_ids
    head, body = prompt_ids[:keep], prompt_ids[keep:]
    room = max(1, room - keep)
    if side == "left":
        return (*head, *body[-room:])
    if side == "right":
        return (*head, *body[:room])
    front = room // 2
    return (*head, *body[:front], *body[len(body) - (room - front) :])

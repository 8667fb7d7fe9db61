"""The records that every view, trace and tool shares. No torch here: numbers, text and bytes only.

`None` always means "not reported": by a forced token, by a remote server, by a run without a cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["prefill", "decode", "draft", "verify", "denoise", "jacobi"]
Status = Literal["sampled", "accepted", "rejected", "revealed", "masked", "guessed", "forced", "pruned", "given"]
ABSENT = {"absent": True}  # of a field that JSON leaves out where it is None
OPEN_STATUSES: tuple[Status, ...] = ("rejected", "guessed", "masked", "pruned")
Reason = Literal["eos", "stop", "length", "context", "time", "interrupt", "constraint", "error"]


@dataclass(slots=True, unsafe_hash=True)  # not frozen: 20 are made for a step, and that takes four times as long
class Candidate:
    """A token the model considered. `prob` is final: 0 when a processor, named in `removed_by`, cut it.

    `moved` are the processors that changed its score while it was possible, in their order, each with the change in
    log score (natural logarithm, relative to the score before it; a constant added to all tokens is no change).
    """

    token_id: int
    piece: bytes
    logprob: float  # raw: log-softmax of the logits, natural logarithm
    prob: float | None
    removed_by: str | None = None
    moved: tuple[tuple[str, float], ...] = ()
    rank: int | None = field(default=None, metadata=ABSENT)  # raw; None: its place among the candidates tells


@dataclass(frozen=True, slots=True)
class LayerExperts:
    """The experts that a layer took, in the order of its choice, and their router probabilities: a softmax over all
    experts, or for a family whose routers have none, the sigmoid of each.

    Layers and experts are numbered from 0, as in the names of the checkpoint's tensors; a shared expert is not listed.
    """

    layer: int
    experts: tuple[int, ...]
    probs: tuple[float, ...]


@dataclass(slots=True, unsafe_hash=True)  # not frozen either: one is made for every token
class Choice:
    """One position decided: the token, how likely the model and the sampler found it, and what else there was.

    `candidates` are the most probable by raw probability, in that order, and always the chosen one. Under a constraint
    as many that were most likely to be drawn are there too, in the same order, and all have a rank.
    """

    position: int
    token_id: int | None
    piece: bytes
    logprob: float | None  # raw, natural logarithm
    prob: float | None  # final
    rank: int | None  # raw, 1 is the most probable
    entropy: float | None  # raw, over the whole vocabulary, bits
    draw: float | None  # the uniform number used; None when greedy
    candidates: tuple[Candidate, ...] = ()
    status: Status = "sampled"
    experts: tuple[LayerExperts, ...] | None = field(default=None, metadata=ABSENT)  # of the position it was made from

    @property
    def is_constrained(self) -> bool:
        """Whether less probable tokens stand among the candidates because a constraint leaves them."""
        return any(candidate.rank is not None for candidate in self.candidates)

    @property
    def possible_first(self) -> list[int]:
        """Places of the candidates: those that could be drawn, then those that were cut."""
        return sorted(range(len(self.candidates)), key=lambda place: self.candidates[place].removed_by is not None)


@dataclass(frozen=True, slots=True)
class StateUsage:
    """The part of one kind of state: keys and values, or what convolutions take in."""

    name: str
    nbytes_used: int


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """What the cache of one sequence holds, in positions and in bytes of the real tensors of all kinds of state."""

    length: int
    limit: int
    allocated: int
    nbytes_used: int
    nbytes_held: int
    bytes_per_token: int
    evicted: int
    states: tuple[StateUsage, ...] | None = field(default=None, metadata=ABSENT)  # where there are several kinds


@dataclass(frozen=True, slots=True)
class Block:
    """The stretch of positions that a parallel step works on."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Step:
    """One sequence's part in one forward pass. `text` is what became printable now."""

    index: int
    forward: int  # number of the pass; batch mates share it
    sequence: int
    phase: Phase
    num_input_tokens: int  # positions computed in this pass
    choices: tuple[Choice, ...]
    text: str
    cache: CacheUsage | None  # None: generated without a cache
    seconds: float
    parent: int | None = None
    rewound_to: int | None = None
    block: Block | None = None
    flow: tuple[dict[str, float | str | None], ...] | None = None

    @property
    def settled(self) -> tuple[Choice, ...]:
        """The choices that stand, unless a later step takes them back."""
        return tuple([c for c in self.choices if c.token_id is not None and c.status not in OPEN_STATUSES])


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the steps of one sequence. Times are in seconds.

    Tokens that a rewind took back are counted apart; they are no new tokens, but the time they took counts.
    """

    new_tokens: int = 0
    forwards: int = 0
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    positions_computed: int = 0
    rewound_tokens: int = 0
    length: int = 0  # of the whole sequence, once it has a new token

    def plus(self, step: Step) -> Totals:
        """These totals and one more step."""
        settled = step.settled
        back = 0 if step.rewound_to is None else max(0, self.length - step.rewound_to)
        new, length = len(settled) - back, self.length - back
        for choice in settled:
            length = max(length, choice.position + 1)
        prefill = step.phase == "prefill"
        return Totals(
            self.new_tokens + new,
            self.forwards + 1,
            self.prefill_tokens + (step.num_input_tokens if prefill else 0),
            self.prefill_seconds + (step.seconds if prefill else 0.0),
            self.decode_tokens + (0 if prefill else new),
            self.decode_seconds + (0.0 if prefill else step.seconds),
            self.positions_computed + step.num_input_tokens,
            self.rewound_tokens + back,
            length,
        )

    @property
    def prefill_rate(self) -> float | None:
        """Prompt tokens per second; None also where nobody told how many there are."""
        return self.prefill_tokens / self.prefill_seconds if self.prefill_tokens and self.prefill_seconds else None

    @property
    def decode_rate(self) -> float | None:
        """New tokens per second, the first one (made by the prefill) not counted."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds else None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of one sequence; `text` is what was still held back, `whole_text` all that it wrote.

    `score` ranks a beam: the sum of its log-probabilities over its number of new tokens to the length penalty.
    """

    sequence: int
    reason: Reason
    text: str
    totals: Totals
    score: float | None = None
    whole_text: str | None = None


Record = Step | Finish

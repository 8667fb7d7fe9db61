"""One text being written: the tokens decided so far, what may come next, and what of it may be printed."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Ids
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenglass.model.decoding.gate import Gate
from tokenglass.model.decoding.healing import Healing
from tokenglass.model.decoding.request import Request
from tokenglass.model.engine.engine import Logits
from tokenglass.model.errors import NothingPossible
from tokenglass.model.records.steps import Choice, Finish, Reason, Totals
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.raw import Measure, Raw
from tokenglass.model.sampling.sampler import Keep, Sampler
from tokenglass.model.sampling.token_array import TokenArray
from tokenglass.model.sampling.truncation import XTC, ids_spared_by_xtc
from tokenglass.model.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenglass.model.sampling.constraints import ConstraintState


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided at once: the choices, and the text that may be printed now."""

    choices: tuple[Choice, ...]
    text: str


@dataclass(slots=True)
class Retries:
    """Tokens that led to a banned phrase, by position; a position is drawn afresh as often as it was taken back."""

    avoided: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def take_back(self, position: int, token_id: int) -> None:
        """What was tried behind the position was tried after another token, and is forgotten."""
        self.avoided = {place: ids for place, ids in self.avoided.items() if place <= position}
        self.avoided[position] = (*self.avoided.get(position, ()), token_id)


class Sequence:
    """Decides token after token from logits; it knows no engine and no cache.

    `limit` is the context's, `vocab_size` that of the logits. Raises ParameterError for a request that contradicts
    itself.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        request: Request,
        limit: int,
        *,
        vocab_size: int | None = None,
        measure: Measure | None = None,
        keep: Keep | None = None,
    ):
        self.number = 0
        self.seed = request.seed
        self.token_ids = list(request.prompt_ids)
        self._array = TokenArray(request.prompt_ids)  # the same
        self.reason: Reason | None = None
        self.rewound_to: int | None = None  # length cut back to by the last decision
        self.request = request
        self._limit = limit
        self._tokenizer = tokenizer
        self.sampler = Sampler(request.sampling, tokenizer.piece, request.top, measure, keep)
        self._spared = (
            ids_spared_by_xtc(tokenizer, request.eos_token_ids) if request.sampling.get(XTC).is_on else frozenset[int]()
        )
        self.has_begun = False  # whether a token was ever decided
        self._healing = Healing(tokenizer, request.healed)
        healed = len(request.healed.decode("utf-8", "replace"))
        self._gate = Gate(tokenizer, request.prompt_ids, request.stops, request.bans, healed)
        self._retries = Retries()
        self._banned_ids = tokenizer.special_ids(request.bans)
        self._constraint: ConstraintState | None = None
        if request.constraint is not None:
            self._constraint = request.constraint.begin(tokenizer, request.eos_token_ids, vocab_size)

    def fork(self, number: int, seed: int | None = None) -> Sequence:
        """Another text that goes on from here, with a seed of its own or this one's."""
        other = copy(self)
        other.number, other.token_ids = number, self.token_ids[:]
        other.seed = self.seed if seed is None else seed
        other._array = self._array.fork()
        other._gate, other._retries = self._gate.fork(), Retries(self._retries.avoided)
        other._constraint = None if self._constraint is None else self._constraint.fork()
        return other

    @property
    def new_tokens(self) -> int:
        return len(self.token_ids) - len(self.request.prompt_ids)

    def decide(self, logits: Choice | Raw | Logits, negative: Logits | None = None) -> Decision:
        """Take the next token, and those that then have to follow. Sets `reason` where the text ends.

        `logits` (vocab,) are those after the last token, or the choice that was made of them in the `free_context`; a
        token that has to come needs none. Raises EngineError.
        """
        self.rewound_to = None
        choices, text = [], ""
        forced = self._forced_ids()
        if not forced:
            try:
                choice = logits if isinstance(logits, Choice) else self.choose(logits, negative)
            except NothingPossible:
                self.reason = "constraint"
                return Decision((), "")
            choices.append(choice)
            assert choice.token_id is not None
            text = self.append(choice.token_id)
            forced = self._forced_ids() if self.rewound_to is None else []
        for token_id in forced:
            if self.reason is not None or self.rewound_to is not None:
                break
            choices.append(self._forced_choice(token_id))
            text += self.append(token_id)
        return Decision(tuple(choices), text)

    def raw(self, logits: Logits) -> Raw:
        """The model's own distribution (vocab,). Raises EngineError where there is none."""
        return self.sampler.raw(logits)

    def choose(self, logits: Raw | Logits, negative: Logits | None = None, ahead: Ids[int] = ()) -> Choice:
        """The token that the sampler takes next, or behind the tokens `ahead`, from logits or what `raw` told of them.

        Raises EngineError, NothingPossible.
        """
        return self.sampler.choose(logits, self.context(negative, ahead))

    def context(self, negative: Logits | None = None, ahead: Ids[int] = ()) -> Context:
        """What the processors may know at the next position, or behind the tokens `ahead`."""
        token_ids = [*self.token_ids, *ahead] if ahead else self.token_ids
        avoided = self._retries.avoided.get(len(token_ids), ())
        return Context(
            token_ids=token_ids,
            prompt_length=len(self.request.prompt_ids),
            seed=self.seed,
            attempt=len(avoided),
            masks=self._masks(avoided, ahead),
            negative=negative,
            spared=self._spared,
            array=None if ahead else self._array.array,
        )

    def free_context(self, ahead: Ids[int] = ()) -> Context | None:
        """The context of the next token, or of that behind `ahead`, where the sampler chooses it in one step.

        None where the text before it has a say.
        """
        may_depend = self._constraint is not None or self._healing.may_go_on(self.new_tokens + len(ahead))
        return self.context(ahead=ahead) if self.sampler.draws_at_once and not may_depend else None

    def exclude(self, token_ids: tuple[int, ...]) -> None:
        """These tokens may not come next: each of them led to a banned phrase."""
        self._retries = Retries({len(self.token_ids): token_ids} if token_ids else {})

    def pop_rewind(self) -> int | None:
        """The length that the last decision cut the text back to; asked once."""
        rewound_to, self.rewound_to = self.rewound_to, None
        return rewound_to

    def finish(self, totals: Totals) -> Finish:
        """The end of a text that has a reason to end; what was held back comes with it, after an error as far as it can
        be had."""
        assert self.reason is not None
        if self.reason != "error":
            text = self.flush()
            return Finish(self.number, self.reason, text, totals)
        text = ""
        with suppress(Exception):
            text = self.flush()
        return Finish(self.number, "error", text, totals)

    def flush(self) -> str:
        """The text that was held back."""
        text = self._gate.flush()
        if self._gate.stopped:
            self.reason = "stop"
        return text

    def _masks(self, avoided: tuple[int, ...], ahead: Ids[int]) -> tuple[Mask, ...]:
        """Raises NothingPossible."""
        request, masks = self.request, []
        if self._healing.may_go_on(self.new_tokens + len(ahead)):
            mask = self._healing.mask([*self.token_ids[len(request.prompt_ids) :], *ahead])
            masks += [] if mask is None else [mask]
        if self._constraint is not None:
            constraint = self._constraint.fork() if ahead else self._constraint
            for token_id in ahead:
                constraint.advance(token_id)
            masks.append(constraint.mask())
        if avoided or self._banned_ids:
            masks.append(Mask("ban", removed=(*avoided, *self._banned_ids)))
        if request.ignore_eos:
            masks.append(Mask("ignore-eos", removed=tuple(request.eos_token_ids)))
        elif self.new_tokens + len(ahead) < request.min_new_tokens:
            masks.append(Mask("min-new-tokens", removed=tuple(request.eos_token_ids)))
        return tuple(masks)

    def append(self, token_id: int) -> str:
        """Add a decided token; the text that may be printed now."""
        self.has_begun = True
        self.token_ids.append(token_id)
        self._array.append(token_id)
        if self._constraint is not None:
            self._constraint.advance(token_id)
        self.reason = reason_to_stop(token_id, len(self.token_ids), self.request, self._limit)
        if self.reason == "eos":
            return ""
        text = self._gate.add(token_id)
        if self._gate.banned_from is not None:
            self._take_back(self._gate.banned_from)
        elif self._gate.stopped:
            self.reason = "stop"
        return text

    def _take_back(self, count: int) -> None:
        """Only the first `count` new tokens stand; the one behind them will be another."""
        length = len(self.request.prompt_ids) + count
        self._retries.take_back(length, self.token_ids[length])
        if self._constraint is not None:
            self._constraint.rewind(len(self.token_ids) - length)
        del self.token_ids[length:]
        self._array.truncate(length)
        self._gate.rewind(count)
        self.reason, self.rewound_to = None, length

    def _forced_ids(self) -> Collection[int]:
        """Tokens that the constraint leaves no choice about, where nothing else has a say."""
        if self._constraint is None or self.reason is not None or self._retries.avoided:
            return []
        forced, request = self._constraint.forced_ids(), self.request
        if forced and forced[-1] in request.eos_token_ids:
            before = self.new_tokens + len(forced) - 1
            is_banned = request.ignore_eos or forced[-1] in self._banned_ids
            if is_banned or before < request.min_new_tokens:  # it may not come: what follows is impossible
                forced.pop()
        return forced

    def _forced_choice(self, token_id: int) -> Choice:
        return Choice(
            position=len(self.token_ids),
            token_id=token_id,
            piece=self._tokenizer.piece(token_id),
            logprob=None,
            prob=None,
            rank=None,
            entropy=None,
            draw=None,
            status="forced",
        )


def reason_to_stop(token_id: int, length: int, request: Request, limit: int) -> Reason | None:
    """Why a sequence that has just reached `length` tokens with `token_id` ends here, or None."""
    if token_id in request.eos_token_ids:
        return "eos"
    if length - len(request.prompt_ids) >= request.max_new_tokens:
        return "length"
    return "context" if length >= limit else None

"""What the text has to fit: a regex, a JSON schema, any JSON, one of some texts, or a grammar.

The library llguidance follows the text with a parser (Earley 1970, over lexemes matched by derivatives of regular
expressions) and says which tokens may come next. It is imported when a constraint begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tokenglass.model.errors import NothingPossible, ParameterError
from tokenglass.model.sampling.constraint_decoders import obstacle
from tokenglass.model.sampling.constraint_grammars import grammar_of, reason
from tokenglass.model.sampling.constraint_tokens import ConstraintTokens
from tokenglass.model.sampling.context import Mask

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from llguidance import LLMatcher
    from numpy.typing import NDArray

    from tokenglass.model.text.tokenizer import Tokenizer

ConstraintName = Literal["regex", "json-schema", "json", "choice", "grammar"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint on the whole text.

    `source` holds a regex (Rust's syntax), a JSON schema, nothing for "json" (an object or an array), the texts to
    choose from, or a grammar in llguidance's variant of Lark's syntax. JSON comes on one line, with a space after each
    comma and colon and no other. Raises ParameterError where a source is empty.
    """

    name: ConstraintName
    source: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name != "json" and not (self.source and all(self.source)):
            raise ParameterError(f"{self.option}: an empty text; expected at least one character")
        if self.name not in ("json", "choice") and len(self.source) > 1:
            raise ParameterError(f"{self.option}: expected one, got {len(self.source)}")
        try:
            "".join(self.source).encode()
        except UnicodeEncodeError:
            raise ParameterError(f"{self.option}: is not valid UTF-8") from None

    @property
    def option(self) -> str:
        """What asks for it on the command line."""
        return f"--{self.name}"

    def check(self) -> None:
        """Read the source without a tokenizer. Raises ParameterError where it is wrong, or llguidance is missing."""
        error = library(self.option).LLMatcher.validate_grammar(grammar_of(self.name, self.source))
        if error:
            raise ParameterError(f"{self.option}: {reason(error)}")

    def begin(
        self, tokenizer: Tokenizer, eos_token_ids: frozenset[int], vocab_size: int | None = None
    ) -> ConstraintState:
        """The constraint before the first token, for logits of `vocab_size` tokens (None: the tokenizer's).

        Raises ParameterError where llguidance is missing, the source is wrong or too complex, no text fits, or the
        tokenizer writes other text than its tokens have.
        """
        if part := obstacle(tokenizer):
            raise ParameterError(
                f"{self.option}: this tokenizer's decoder does not write each token as it is ({part}), so that no "
                "constraint can be kept; leave it out, or use another model"
            )
        llguidance = library(self.option)
        eos_token_ids = frozenset(k for k in eos_token_ids if vocab_size is None or k < vocab_size)
        tokens = ConstraintTokens(tokenizer, eos_token_ids, vocab_size)
        # Its own limits stand: they bound what a hostile schema can cost.
        limits = llguidance.LLParserLimits(verbose_errors=False)
        grammar = grammar_of(self.name, self.source)
        matcher = llguidance.LLMatcher(tokens.for_llguidance(), grammar, log_level=0, limits=limits)
        state = ConstraintState(self.name, matcher, tokens.size, tuple(sorted(eos_token_ids)))
        try:
            allowed = state.mask().allowed
        except NothingPossible as error:
            raise ParameterError(str(error)) from None
        if allowed is not None and not allowed.any():
            raise ParameterError(f"{self.option}: no text that this tokenizer can write fits")
        return state


def library(option: str) -> ModuleType:
    """llguidance, for the constraint that the option asks for. Raises ParameterError where it is missing."""
    try:
        import llguidance  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ParameterError(f'{option}: needs the llguidance library; pip install "tokenglass[constrain]"') from None
    return llguidance


class ConstraintState:
    """A constraint behind some tokens; `size` is the number of tokens that can come."""

    def __init__(self, name: ConstraintName, matcher: LLMatcher, size: int, eos_token_ids: tuple[int, ...]):
        self._name = name
        self._matcher = matcher
        self._size = size
        self._eos_token_ids = eos_token_ids
        self._outside = 0  # tokens behind those that fit: the end token, or what somebody else put there
        self._allowed: NDArray[np.bool_] | None = None  # what `mask` said last, while it is true

    @property
    def fits(self) -> bool:
        """Whether the text may end here."""
        return not self._outside and not self._matcher.is_error() and bool(self._matcher.is_accepting())

    def mask(self) -> Mask:
        """What may come next, `allowed` (size,); an end token exactly where the text fits as it is.

        Raises NothingPossible where the text has ended or left the constraint, or following it costs too much.
        """
        if self._allowed is None:
            self._allowed = self._compute()
        return Mask(self._name, self._allowed)

    def forced_ids(self) -> list[int]:
        """Tokens that have to come now, in order; at the end of the text the lowest end token. [] where there is a
        choice, or nothing is possible."""
        tokens: list[int] = []
        while more := self._next_forced():
            tokens += more
            for token_id in more:
                self.advance(token_id)
        if tokens:
            self.rewind(len(tokens))
        return tokens

    def advance(self, token_id: int) -> None:
        """The text goes on with this token."""
        self._allowed = None
        if self._outside or token_id in self._eos_token_ids or not self._matcher.try_consume_tokens([token_id]):
            self._outside += 1

    def rewind(self, count: int) -> None:
        """Take back the last `count` tokens."""
        self._allowed = None
        outside = min(count, self._outside)
        self._outside -= outside
        if count > outside:
            self._matcher.rollback(count - outside)

    def fork(self) -> ConstraintState:
        """The same state, to be continued apart."""
        other = ConstraintState(self._name, self._matcher.deep_copy(), self._size, self._eos_token_ids)
        other._outside, other._allowed = self._outside, self._allowed
        return other

    def _compute(self) -> NDArray[np.bool_]:
        import numpy as np  # noqa: PLC0415  (this module is read by what needs no numbers)

        if self._outside:
            raise NothingPossible(f"--{self._name}: nothing may follow")
        allowed = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8)[: self._size] > 0
        if self._matcher.is_error():
            raise NothingPossible(f"--{self._name}: {reason(self._matcher.get_error())}")
        allowed[list(self._eos_token_ids)] = self._matcher.is_accepting()
        return allowed

    def _next_forced(self) -> list[int]:
        if self._outside or self._matcher.is_error():
            return []
        tokens = self._matcher.compute_ff_tokens()
        if tokens := tokens[: self._matcher.validate_tokens(tokens)]:
            return tokens
        try:
            allowed = self.mask().allowed
        except NothingPossible:
            return []
        assert allowed is not None
        possible: list[int] = allowed.nonzero()[0].tolist()
        only_the_end = set(possible) <= set(self._eos_token_ids)
        return possible[:1] if len(possible) == 1 or only_the_end else []

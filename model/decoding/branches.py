"""A tree of texts behind one prompt, chosen token by token: by the sampler, by hand, and otherwise after going back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence as Several
from dataclasses import dataclass, field, replace

from tokenglass.model.decoding.gate import first_end
from tokenglass.model.decoding.guidance import Negative
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.path_cache import PathCache
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.engine.engine import Logits
from tokenglass.model.records.steps import Candidate, Choice, Reason
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.sampler import likeliest
from tokenglass.model.text.tokenizer import REPLACEMENT

WINDOW = 32  # last tokens of the prompt that decide how the first new ones are written


@dataclass(eq=False, slots=True)
class Node:
    """A token at its place in the tree, and the ways on from there; the root is where the prompt ends.

    `offer` is what the sampler takes next: the candidates, and the token it will draw. That record is all that is kept
    of the logits. `draws` counts the tokens drawn from here, so that each return draws afresh. `banned` are those that
    led to a banned phrase.
    """

    choice: Choice | None = None
    parent: Node | None = None
    depth: int = 0  # new tokens up to here
    logprob: float = 0.0  # raw, their sum
    children: dict[int, Node] = field(default_factory=dict)
    ahead: Node | None = None  # the way on that was taken last
    offer: Choice | None = None
    draws: int = 0
    banned: tuple[int, ...] = ()
    reason: Reason | None = None  # why the text ends here
    marked: bool = False

    @property
    def token_id(self) -> int:
        assert self.choice is not None, "the root has no token of its own"
        assert self.choice.token_id is not None
        return self.choice.token_id

    @property
    def logprob_per_token(self) -> float | None:
        return self.logprob / self.depth if self.depth else None

    @property
    def is_branch(self) -> bool:
        """Whether a text ends here, or was marked here."""
        return self.marked or (not self.children and self.depth > 0)

    def path(self) -> tuple[Node, ...]:
        """The nodes from the first new token to this one."""
        nodes, node = [], self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return tuple(reversed(nodes))


class Branches:
    """The tree, and `here`, the place in it. Nothing that was chosen is lost by going back.

    Moving computes nothing; `look` then computes what the place still lacks. With the same seed, `draw` alone takes
    the tokens that `decode` takes. A token that completes a banned phrase leads back to where the phrase began. By hand
    anything can be taken; behind what a constraint does not allow, nothing can follow. Raises PromptError for a prompt
    that fills the context, ParameterError for a request that contradicts itself.
    """

    def __init__(self, job: Job, shown: int | None = None):
        """`shown` candidates can be picked from, or as many as are recorded."""
        request, engine = job.request, job.engine
        self._shown = request.top if shown is None else shown
        self.root = self.here = Node()
        self.is_rewound = False  # whether the last token completed a banned phrase, so that `here` is where it began
        self.cache: PathCache[Node] = PathCache(engine, request)
        self._tokenizer = job.tokenizer
        self._vocab_size = engine.vocab_size
        self._request = request
        endless = replace(request, max_new_tokens=max(request.max_new_tokens, engine.limit))
        self._beginning = replace(job, request=endless).new_sequence()
        self._sequence = self._beginning.fork(0)
        self._place = self.root  # where the sequence stands
        self._negative = Negative(engine, request) if request.negative_ids else None
        self._looked_at: Node | None = None  # the place whose logits are at hand
        self._logits: Logits
        self._negative_logits: Logits | None = None  # behind the negative prompt

    def look(self) -> Iterator[int]:
        """Make the offer of this place where there is none yet; the length of the cache after each pass.

        Raises EngineError, and NothingPossible where processors leave no token.
        """
        if self.here.offer is None and self.here.reason is None:
            yield from self._compute(self.here)
            self._renew(self.here)

    def draw(self) -> Node:
        """Take what the sampler draws; the next draw from here will be another."""
        node, offer = self.here, self._offer()
        node.draws += 1
        self._renew(node)
        return self._go_on(node, offer)

    def pick(self, index: int) -> Node:
        """Take a candidate by hand. Raises IndexError."""
        return self._force(self.candidates()[index].token_id)

    def force(self, token_ids: Several[int]) -> Iterator[int]:
        """Take these tokens, whatever the sampler thinks of them; the length of the cache after each pass.

        Each keeps its real logprob. It ends early where the text does, or a ban leads back. Raises what `look` raises.
        """
        for token_id in token_ids:
            yield from self.look()
            if self.here.reason is not None:
                return
            if all(candidate.token_id != token_id for candidate in self._kept_candidates()):
                yield from self._compute(self.here)
            self._force(token_id)
            if self.is_rewound:
                return

    def back(self) -> bool:
        """One token back, where there is one."""
        if self.here.parent is None:
            return False
        self.here = self.here.parent
        return True

    def forward(self) -> bool:
        """On along the way that was taken last, where there is one."""
        if self.here.ahead is None:
            return False
        self.here = self.here.ahead
        return True

    def switch(self, node: Node) -> None:
        """Go to any place of the tree; going back from there and forward again keeps to its path."""
        self.here = node
        while node.parent is not None:
            node.parent.ahead = node
            node = node.parent

    def candidates(self) -> tuple[Candidate, ...]:
        """The most probable next tokens, under a constraint those first that it leaves; what the sampler will draw is
        among them only if it is one of these."""
        offer, top = self.here.offer, self._shown
        if offer is None or not offer.is_constrained:
            return () if offer is None else offer.candidates[:top]
        possible = likeliest(offer.candidates)[:top]
        return (*possible, *[each for each in offer.candidates[:top] if each not in possible])

    def graft(self, node: Node, choice: Choice) -> Node | None:
        """Put a token that was chosen before behind a place, and stay here.

        None for what is no token of this model, or there already; where the text has ended; and where a ban takes it
        back.
        """
        token_id, logprob = choice.token_id, choice.logprob
        if token_id is None or not 0 <= token_id < self._vocab_size or token_id in node.children:
            return None
        if logprob is None or not -math.inf < logprob < 1 or node.reason is not None:  # rounding may leave it above 0
            return None
        sequence = self._sequence_at(node)
        sequence.append(token_id)
        position, piece = len(self._request.prompt_ids) + node.depth, self._tokenizer.piece(token_id)
        choice = replace(choice, position=position, piece=piece)
        self._place = Node(choice, node, node.depth + 1, node.logprob + logprob, reason=sequence.reason)
        if sequence.pop_rewind() is not None:
            return None
        node.children[token_id] = node.ahead = self._place
        return self._place

    def text(self, node: Node) -> str:
        """The new text up to there, or to a stop; an incomplete character at its end is U+FFFD."""
        edge = self._request.prompt_ids[-WINDOW:]
        known, whole = (
            self._tokenizer.decode(ids) for ids in (edge, (*edge, *(place.token_id for place in node.path())))
        )
        if not whole.startswith(known):  # the prompt ends inside a character
            known = known.rstrip(REPLACEMENT)
        text = whole[len(known) :]
        stop = first_end(text, self._request.stops, 0) if node.reason == "stop" else None
        return text if stop is None else text[: stop[0]]

    def tokens_for(self, text: str) -> tuple[int, ...]:
        """The tokens that add exactly this text here; some tokenizers would begin it with a space by themselves."""
        before = [*self._request.prompt_ids[-WINDOW:], *(place.token_id for place in self.here.path())][-WINDOW:]
        known, plain = self._tokenizer.decode(before), self._tokenizer.encode_bare(text)
        edge = self._tokenizer.encode_bare("\n")
        behind_edge = self._tokenizer.encode_bare("\n" + text)
        ways = [plain, behind_edge[len(edge) :]] if behind_edge[: len(edge)] == edge else [plain]
        return next((ids for ids in ways if self._tokenizer.decode((*before, *ids)) == known + text), plain)

    def nodes(self) -> Iterator[Node]:
        """The whole tree, each node before what follows it."""
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children.values())

    def _compute(self, node: Node) -> Iterator[int]:
        """The logits of a place, where they are not at hand."""
        if self._looked_at is node:
            return
        self._looked_at = None
        for logits in self.cache.follow(node.path()):
            self._logits = logits
            yield self.cache.length
        if self._negative is not None:
            self._negative_logits = self._negative.logits(self._sequence_at(node))
        self._looked_at = node

    def _renew(self, node: Node) -> None:
        """The offer for the next draw, where the logits are at hand; else it is made when somebody looks."""
        node.offer = None
        if self._looked_at is node:
            node.offer = self._beginning.sampler.choose(self._logits, self._context(node))

    def _context(self, node: Node) -> Context:
        sequence = self._sequence_at(node)
        sequence.exclude(node.banned)
        return replace(sequence.context(self._negative_logits), attempt=node.draws)

    def _sequence_at(self, node: Node) -> Sequence:
        """The text up to there, with what stops, bans and a constraint know of it."""
        if self._place is not node:
            path = node.path()
            if self._place is node.parent:
                path = path[-1:]
            else:
                self._sequence = self._beginning.fork(0)
            for place in path:
                self._sequence.append(place.token_id)
            self._place = node
        return self._sequence

    def _kept_candidates(self) -> tuple[Candidate, ...]:
        """The candidates that a choice here keeps."""
        offer = self._offer()
        return offer.candidates if offer.is_constrained else offer.candidates[: self._request.top]

    def _offer(self) -> Choice:
        assert self.here.offer is not None, "look first"
        return self.here.offer

    def _force(self, token_id: int) -> Node:
        offer, shown, sampler = self._offer(), self._kept_candidates(), self._beginning.sampler
        rank = next((k for k, candidate in enumerate(shown, start=1) if candidate.token_id == token_id), None)
        if rank is None:
            raw = sampler.raw(self._logits)
            scores = sampler.scores(raw, self._context(self.here))
            return self._go_on(self.here, sampler.record(raw, scores, token_id, status="forced"))
        taken = shown[rank - 1]
        choice = replace(
            offer,
            token_id=token_id,
            piece=taken.piece,
            logprob=taken.logprob,
            prob=taken.prob,
            rank=taken.rank or rank,
            draw=None,
            candidates=shown,
            status="forced",
        )
        return self._go_on(self.here, choice)

    def _go_on(self, node: Node, choice: Choice) -> Node:
        """To the token of this choice, or back from it; a way that is there already is taken again."""
        assert choice.token_id is not None
        assert choice.logprob is not None
        child = node.children.get(choice.token_id)
        if child is None:
            sequence = self._sequence_at(node)
            sequence.append(choice.token_id)
            self._place = Node(choice, node, node.depth + 1, node.logprob + choice.logprob, reason=sequence.reason)
            length = sequence.pop_rewind()
            if length is not None:
                return self._go_back(self._place.path(), length - len(self._request.prompt_ids))
            child = node.children[choice.token_id] = self._place
        child.choice = choice
        node.ahead = self.here = child
        self.is_rewound = False
        return child

    def _go_back(self, path: Several[Node], depth: int) -> Node:
        """To the place at that depth, where a phrase began that the end of the path completes and that is banned."""
        first = path[depth]
        assert first.parent is not None
        self.here = self._place = first.parent
        self.here.banned += (first.token_id,)
        self._renew(self.here)
        self.is_rewound = True
        return self.here

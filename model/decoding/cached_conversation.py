"""A conversation with a model that is here, over one cache: what was computed once is not computed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.conversation import Conversation, Turn
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Engine
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.text.chat import ChatTemplate, Message
from tokenglass.model.text.thoughts import Tags, Thoughts, tags_of
from tokenglass.model.text.tokenizer import Tokenizer


class CachedConversation(Conversation):
    """The messages so far, and the cache that goes from turn to turn."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate, messages: Sequence[Message] = ()):
        super().__init__(messages)
        self.engine = engine
        self.tokenizer = tokenizer
        self.template = template
        self.cache: KVCache | None = None

    @property
    def tags(self) -> Tags:
        return tags_of(self.template.source, self.tokenizer)

    def go_on(self) -> Turn:
        """The turn in which the last answer goes on where it stopped. Raises PromptError where there is none.

        After an end token there is one more token at least. An answer that was loaded, or that a stop string cut, is
        read anew; any other goes on from the very tokens that it consists of.
        """
        last = self.last
        if last is None or last.reason == "stop":
            return super().go_on()
        least = 1 if last.reason == "eos" else 0
        choices = last.choices[:-1] if last.reason == "eos" else last.choices
        return Turn(self.messages[:-1], last.token_ids, last.thoughts, choices, least)

    def reuse(self, prompt_ids: Sequence[int], planned_length: int | None = None) -> int:
        """Cut the cache back to what it shares with a prompt; the positions that need no computing.

        The last position of the prompt is always computed: its logits are the first token's. Nothing is shared where
        a run of `planned_length` needs other rotary factors than the turns before it.
        """
        if self.cache is None or not self.cache.serves(planned_length):
            self.cache = self.engine.new_cache(planned_length=planned_length)
        return self.cache.keep_prefix(0, prompt_ids[:-1])

    def _records(self, _: Turn, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        self.reuse(request.prompt_ids, request.planned_length(self.engine.limit))
        cache, self.cache = self.cache, None  # until it is finished: what is broken off in a pass may be half written
        for record in decode(Job(self.engine, self.tokenizer, request, interrupt, cache)):
            if isinstance(record, Finish):
                self.cache = cache
            yield record

    def _turn(self, messages: tuple[Message, ...]) -> Turn:
        prompt_ids = self.template.encode(messages, self.tokenizer)
        return Turn(messages, prompt_ids, Thoughts.behind(prompt_ids, self.tags, self.tokenizer))

    def _turn_behind(self, messages: tuple[Message, ...], said: str) -> Turn:
        return Turn(messages, self.template.encode(messages, self.tokenizer, said, is_generated=True))

    def _check(self, messages: tuple[Message, ...]) -> None:
        is_open = bool(messages) and messages[-1].role not in ("assistant", "system", "developer")
        self.template.encode(messages if is_open else (*messages, Message("user", "?")), self.tokenizer)

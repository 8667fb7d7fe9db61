"""A conversation of several turns over one cache: what was computed once is not computed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.recorder import Interrupt
from tokenglass.model.decoding.request import Request
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Engine
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.text.chat import ChatTemplate, Message
from tokenglass.model.text.tokenizer import Tokenizer


@dataclass(slots=True)
class Conversation:
    """The messages so far, and the cache that goes from turn to turn."""

    engine: Engine
    tokenizer: Tokenizer
    template: ChatTemplate
    messages: tuple[Message, ...] = ()
    cache: KVCache | None = None

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of the conversation with one more message of the user. Raises TemplateError."""
        return self.template.encode((*self.messages, Message("user", text)), self.tokenizer)

    def reuse(self, prompt_ids: Sequence[int], planned_length: int | None = None) -> int:
        """Cut the cache back to what it shares with a prompt; the positions that need no computing.

        The last position of the prompt is always computed: its logits are the first token's. Nothing is shared where
        a run of `planned_length` needs other rotary factors than the turns before it.
        """
        if self.cache is None or not self.cache.serves(planned_length):
            self.cache = self.engine.new_cache(planned_length=planned_length)
        return self.cache.keep_prefix(0, prompt_ids[:-1])

    def answer(self, text: str, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        """Decode an answer to `text`; when it is finished, both become part of the conversation.

        `request` holds what `prompt_ids` gave. An answer that an error ends, or an interrupt before its first text,
        leaves the conversation as it was.
        """
        self.reuse(request.prompt_ids, request.planned_length(self.engine.limit))
        cache, self.cache = self.cache, None  # until it is finished: what is broken off in a pass may be half written
        said: list[str] = []
        for record in decode(Job(self.engine, self.tokenizer, request, interrupt, cache)):
            said.append(record.text)
            if isinstance(record, Finish):
                self.cache = cache
                if record.reason != "error" and (record.reason != "interrupt" or any(said)):
                    self.messages += (Message("user", text), Message("assistant", "".join(said), is_generated=True))
            yield record

    def clear(self) -> None:
        """Forget all but the system message."""
        self.messages = tuple(message for message in self.messages if message.role == "system")

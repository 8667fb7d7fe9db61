"""A given text, or answers to a prompt, as a server's model finds them."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import overload

from tokenglass.model.errors import ParameterError
from tokenglass.model.importers.response_trace import choice_of
from tokenglass.model.measuring.choosing import Choosing, Encode, EncodedQuestion, Logprobs, weigh
from tokenglass.model.measuring.scoring import GivenText, windows
from tokenglass.model.records.steps import Choice
from tokenglass.model.sources.server.served_text import ServedText


def encode_given(served: ServedText, text: str) -> GivenText:
    """A text in the server's tokens. Raises ServerError."""
    token_ids, bare = served.encode(text), served.encode_bare(text)
    added = len(token_ids) - len(bare) if token_ids[len(token_ids) - len(bare) :] == bare else 0
    return GivenText(text, token_ids, ServedOffsets(served, text, token_ids, added), added)


class ServedOffsets(Sequence[int]):
    """The character that each token begins with, by what the tokens before it say; vLLM and SGLang tell that with their
    numbers, so that a token is to be asked for when those before it were reported."""

    def __init__(self, served: ServedText, text: str, token_ids: Sequence[int], added: int):
        self._served, self._token_ids, self._length = served, token_ids, len(text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._known = [0] * (added + 1)  # of the first tokens

    def __len__(self) -> int:
        return len(self._token_ids)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        while len(self._known) <= place:
            said = self._served.piece(self._token_ids[len(self._known) - 1])
            self._known.append(min(self._known[-1] + len(self._decoder.decode(said)), self._length))
        return self._known[place]


def score_served(served: ServedText, token_ids: Sequence[int], window: int, stride: int, top: int) -> Iterator[Choice]:
    """Every token as a choice that was given, with the numbers that the server reports. Raises ServerError."""
    for span in windows(len(token_ids), window, stride):
        first = 0 if span.first == 1 else span.first - span.start
        for number, token in enumerate(served.report(token_ids[span.start : span.end], first, top), span.start + first):
            yield replace(choice_of(token, number, {}), status="given")


class ServedChooser:
    """Computes answers from the log-probabilities of their tokens behind the prompt. Where the tokenizer would join the
    prompt's end and an answer, they are cut apart."""

    def __init__(self, served: ServedText):
        self._served = served

    def choose(self, encode: Encode, answers: Sequence[str], *, prior: tuple[int, ...] | None = None) -> Choosing:
        """The answers behind a prompt. Raises ParameterError, PromptError, ServerError."""
        if prior is not None:
            raise ParameterError("--prior is not for a server; it works with a model that is here")
        question = EncodedQuestion.encode(self._served, encode, answers)
        return weigh(self._served, answers, question, [self._logprobs(question, ids) for ids in question.answers], None)

    def _logprobs(self, question: EncodedQuestion, answer: tuple[int, ...]) -> Logprobs:
        tokens = list(self._served.report((*question.context, *answer), len(question.context), 1))
        logprobs = [token.logprob for token in tokens if token.logprob is not None]
        if len(logprobs) < len(answer):
            raise ParameterError("the server does not report the log-probability of every token of the answers")
        return logprobs

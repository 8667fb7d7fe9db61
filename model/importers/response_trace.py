"""Responses of other programs' servers as the records of runs. What they do not report is None, and nothing is made up.

A token whose id is not reported gets one below 0, the same wherever the same bytes come again in that run.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Iterator

from tokenglass.model.decoding.request import Request
from tokenglass.model.importers.responses import ReportedText, ReportedToken, Response
from tokenglass.model.records.steps import Candidate, Choice, Finish, Reason, Record, Step, Totals
from tokenglass.model.runs.run import EngineSettings, Run, Search
from tokenglass.model.sampling.parameters import SamplingParameters

MOST_PROMPT = 2**24  # tokens


def runs_of(responses: Iterable[Response]) -> Iterator[Run | Record]:
    """The records of a trace: each response is a run, each of its texts a sequence."""
    for response in responses:
        texts = [text for _, text in sorted(response.texts.items())]
        run = describe(response, texts)
        yield run
        ids: dict[bytes, int] = {}
        index = 0
        for sequence, text in enumerate(texts):
            for record in records_of(text, response, run.prompt_length, sequence, index, ids):
                index += isinstance(record, Step)
                yield record


def describe(response: Response, texts: list[ReportedText]) -> Run:
    """The prompt has as many tokens as are reported, or one."""
    length = min(response.prompt_length or 1, MOST_PROMPT)
    request = Request(
        prompt_ids=response.prompt_ids or (-1,) * length,
        seed=0,
        sampling=SamplingParameters(temperature=1.0, top_p=1.0),
        max_new_tokens=max(1, *(len(text.tokens) for text in texts)),
        top=max((len(token.top) for text in texts for token in text.tokens), default=0),
    )
    search = Search(num_samples=max(1, len(texts)))
    engine = EngineSettings(backend=response.server)
    return Run(response.model, "", "", response.prompt, request, search=search, engine=engine)


def records_of(
    text: ReportedText, response: Response, prompt_length: int, sequence: int, index: int, ids: dict[bytes, int]
) -> Iterator[Record]:
    """A step for each token, and a Finish where the text is said to have ended."""
    steps = ReportedSteps(prompt_length, sequence, index, ids)
    for number, token in enumerate(text.tokens):
        yield steps.step(token, response.seconds_per_token if number else response.prefill_seconds)
    if text.reason is not None:
        yield steps.finish(text.reason)


class ReportedSteps:
    """The records of one text, made token by token; positions begin behind the prompt."""

    def __init__(self, prompt_length: int, sequence: int = 0, index: int = 0, ids: dict[bytes, int] | None = None):
        self.totals = Totals()
        self._position = prompt_length  # of the next token
        self._prompt_length = prompt_length
        self._sequence = sequence
        self._index = index  # of the first step
        self._ids = {} if ids is None else ids  # that stand for those of pieces which are reported without
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._said: list[str] = []

    def skip(self, count: int) -> None:
        """So many tokens came of which nothing is reported."""
        self._position += count

    def step(self, token: ReportedToken | None, seconds: float, text: str | None = None) -> Step:
        """One more token, or none; `text` is what became printable with it, where the bytes of tokens do not tell."""
        number = self.totals.forwards
        step = Step(
            index=self._index + number,
            forward=self._index + number,
            sequence=self._sequence,
            phase="decode" if number else "prefill",
            num_input_tokens=1 if number else self._prompt_length,
            choices=() if token is None else (choice_of(token, self._position, self._ids),),
            text=self._decoder.decode(b"" if token is None else token.piece) if text is None else text,
            cache=None,
            seconds=seconds,
        )
        self._position += len(step.choices)
        self.totals = self.totals.plus(step)
        self._said.append(step.text)
        return step

    def finish(self, reason: Reason) -> Finish:
        rest = self._decoder.decode(b"", True)
        return Finish(self._sequence, reason, rest, self.totals, whole_text="".join((*self._said, rest)))


def choice_of(token: ReportedToken, position: int, ids: dict[bytes, int]) -> Choice:
    """The token among the most probable ones, by its id or else its bytes; behind them where it is none of them."""
    token_id = id_of(token, ids)
    place = next((place for place, each in enumerate(token.top) if is_same(each, token)), None)
    listed = token.top if place is not None else (*token.top, token)
    candidates = [candidate_of(each, id_of(each, ids)) for each in listed]
    chosen = len(listed) - 1 if place is None else place
    candidates[chosen] = candidate_of(listed[chosen], token_id)
    return Choice(
        position=position,
        token_id=token_id,
        piece=token.piece,
        logprob=token.logprob,
        prob=token.prob,
        rank=None if place is None or token.logprob is None else place + 1,
        entropy=None,
        draw=None,
        candidates=tuple(candidates),
    )


def is_same(one: ReportedToken, other: ReportedToken) -> bool:
    if one.token_id is not None and other.token_id is not None:
        return one.token_id == other.token_id
    return one.piece == other.piece


def candidate_of(token: ReportedToken, token_id: int) -> Candidate:
    return Candidate(token_id, token.piece, math.nan if token.logprob is None else token.logprob, token.prob)


def id_of(token: ReportedToken, ids: dict[bytes, int]) -> int:
    if token.token_id is not None:
        return token.token_id
    return ids.setdefault(token.piece, -1 - len(ids))

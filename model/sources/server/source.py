"""Records that a server writes, read from its stream of tokens."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tokenglass.model.config.fields import quote
from tokenglass.model.decoding.ending import end_always
from tokenglass.model.decoding.recorder import Interrupt, reason_to_stop_now
from tokenglass.model.decoding.request import UNKNOWN_PROMPT, Request
from tokenglass.model.errors import ServerError, TraceError, first_line
from tokenglass.model.importers.response_trace import ReportedSteps
from tokenglass.model.importers.responses import ReportedToken, Response, event_of, reader_of
from tokenglass.model.records.steps import Finish, Reason, Record, Step, Totals
from tokenglass.model.runs.run import EngineSettings, Run
from tokenglass.model.sources.server.api import Body, Prompt, without_logprobs
from tokenglass.model.sources.server.failures import message_in
from tokenglass.model.sources.server.lines import LineStream
from tokenglass.model.sources.server.pieces import Pieces
from tokenglass.model.sources.server.probe import Server

MOST_IDLE = 10_000  # lines in a row that bring no token
GRACE = 1.0  # seconds that the totals may come behind the last token
REFUSED = (400, 422, 501)  # of a field that a server does not know
TRUNCATIONS = {"top-n-sigma", "top-k", "top-p", "min-p", "typical-p", "xtc"}


def describe_served(server: Server, request: Request, prompt: str) -> Run:
    """The run; `prompt` is the text that is shown."""
    logprobs = server.api.logprobs(request.sampling)
    engine = EngineSettings(server.api.name, server=server.address, logprobs=logprobs)
    return Run(server.name, "", "", prompt, request, engine=engine)


@dataclass(frozen=True, slots=True)
class ServerSource:
    """A server, and the prompt as it gets it: one request for each run."""

    server: Server
    prompt: Prompt
    has_logprobs: bool = True

    def records(self, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        """Raises ServerError, behind a Finish with what had come."""
        stream = Stream(self.server, self.prompt, request, interrupt, has_logprobs=self.has_logprobs)
        return end_always(stream.records(), lambda: [stream.finish("error")])


@dataclass(frozen=True, slots=True)
class PromptSource:
    """A server, and a prompt as it was written: it is asked for the text of a chat and for the tokens first."""

    server: Server
    prompt: Prompt
    has_logprobs: bool = True

    def read(self, request: Request) -> tuple[ServerSource, Request]:
        """The prompt as the server gets it, and the request with its tokens. Raises ServerError."""
        prompt = self.server.text_of(self.prompt)
        prompt_ids = self.server.token_ids(prompt) or UNKNOWN_PROMPT
        return ServerSource(self.server, prompt, self.has_logprobs), replace(request, prompt_ids=prompt_ids)

    def records(self, request: Request, interrupt: Interrupt) -> Iterator[Record]:
        """Raises ServerError, behind a Finish once the prompt is read."""
        source, request = self.read(request)
        yield from source.records(request, interrupt)


class Stream:
    """One request, and what has come of its answer. Seconds are those between arrivals, on this side of the wire."""

    def __init__(
        self, server: Server, prompt: Prompt, request: Request, interrupt: Interrupt, *, has_logprobs: bool = True
    ):
        self._server = server
        self._prompt = prompt
        self._request = request
        self._interrupt = interrupt
        self._has_logprobs = has_logprobs
        most = server.api.num_candidates(prompt, request.top)
        self._response = Response(server.api.name, None, server.model, num_candidates=most)
        self._text = self._response.text(0)
        self._steps = ReportedSteps(len(request.prompt_ids))
        self._pieces = Pieces()
        self._began = self._last = time.perf_counter()
        self._ended: float | None = None  # when the text had ended
        self._idle = 0
        self._count = 0  # tokens that came, told of or not
        self._is_final = gives_final(request)

    def records(self) -> Iterator[Record]:
        """The steps as they come, then the Finish. Raises ServerError."""
        body = self._server.api.body(self._server.api, self._server.model, self._prompt, self._request)
        try:
            yield from self._read(body if self._has_logprobs else without_logprobs(body))
        except ServerError as error:
            if self._steps.totals.forwards or error.status not in REFUSED or "logprobs" not in str(error):
                raise
            yield from self._read(without_logprobs(body))
        yield self.finish(self._reason())

    def finish(self, reason: Reason) -> Finish:
        """The end, with the server's own counts where it has told them."""
        end = self._steps.finish(reason)
        return replace(end, totals=self._with_counts(end.totals))

    def _read(self, body: Body) -> Iterator[Step]:
        with LineStream(self._server.client, self._server.api.path(self._prompt), body) as stream:
            for line in stream.until(self._is_over):
                yield from self._steps_of(line)

    def _steps_of(self, line: str) -> Iterator[Step]:
        """What a line brings. Raises ServerError for one that is nothing of what a server sends."""
        text, now = self._text, time.perf_counter()
        try:
            if event := event_of(line):
                document = json.loads(event)
                if not isinstance(document, dict):
                    raise TraceError(f"expected a JSON object, found {quote(document)}")
                if said := message_in(document):
                    raise self._failure(f"the server reports an error: {said}")
                read, _ = reader_of(document)
                read(document, self._response)
        except (TraceError, ValueError, RecursionError) as error:
            raise self._failure(f"the server sent what cannot be read ({first_line(error)})") from None
        room = max(0, self._request.max_new_tokens - self._count)
        pairs = self._pieces.pair_all(text.tokens, "".join(text.thoughts), "".join(text.parts))[:room]
        for taken in (text.tokens, text.thoughts, text.parts):
            taken.clear()
        self._idle = 0 if pairs else self._idle + 1
        if self._idle > MOST_IDLE and self._ended is None:
            raise self._failure(f"{MOST_IDLE:,} lines without a token; the request is closed")
        first = next(iter(pairs), (None, ""))
        if first[0] is not None and (lost := self._num_lost(len(pairs))):
            pairs[0] = (ReportedToken(first[0].piece), first[1])  # its numbers are those of its last part alone
            self._steps.skip(lost)
        for token, said in pairs:
            stated = None if token is None else self._restate(token)
            yield self._steps.step(stated, (now - self._last) / len(pairs), said)
            self._count += token is not None
        if pairs:
            self._last = now
        if self._ended is None and (text.reason is not None or len(pairs) == room):
            self._ended = now

    def _num_lost(self, count: int) -> int:
        """How many tokens came before the newest `count` that nobody told of: llama.cpp counts them."""
        lost = max(0, (self._response.new_tokens or 0) - self._count - count)
        self._count += lost
        return lost

    def _is_over(self) -> bool:
        """Whether nothing more is wanted."""
        if self._ended is not None and time.perf_counter() - self._ended > GRACE:
            return True
        return self._stop_reason() is not None

    def _stop_reason(self) -> Reason | None:
        return reason_to_stop_now(self._request, self._interrupt, time.perf_counter() - self._began)

    def _reason(self) -> Reason:
        """Why the text ended. Raises ServerError where nothing says so."""
        if self._text.reason is not None:
            return self._text.reason
        if (reason := self._stop_reason()) is not None:
            return reason
        if self._ended is not None:
            return "length"
        raise self._failure("the server ended the stream before the text had ended")

    def _failure(self, what: str) -> ServerError:
        return self._server.client.without_key(ServerError(f"{self._server.address}: {what}"))

    def _restate(self, token: ReportedToken) -> ReportedToken:
        """The token with its number where it belongs: what is neither raw nor final is no number of ours."""
        if self._server.api.logprobs(self._request.sampling) != "processed":
            return token
        prob = math.exp(token.logprob) if self._is_final and token.logprob is not None else None
        return ReportedToken(token.piece, token.token_id, None, prob, tuple(map(self._restate, token.top)))

    def _with_counts(self, totals: Totals) -> Totals:
        response = self._response
        new = max(totals.new_tokens, response.new_tokens or 0)
        return replace(
            totals,
            new_tokens=new,
            decode_tokens=totals.decode_tokens + new - totals.new_tokens,
            prefill_tokens=response.prompt_length
            or (0 if self._request.prompt_ids == UNKNOWN_PROMPT else totals.prefill_tokens),
        )


def gives_final(request: Request) -> bool:
    """Whether processed numbers are those of the distribution that is sampled: nothing is cut from it later."""
    acting = {each.name for each in request.sampling.processors if each.acts(request.sampling.is_greedy)}
    return not acting & TRUNCATIONS

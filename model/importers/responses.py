"""Responses that other programs' servers gave, with log-probabilities, read as texts of tokens.

The shapes, as their documentation has them: OpenAI's completions and chat completions (platform.openai.com/docs, "The
completion object", "The chat completion object"), which vLLM gives too, with fields of its own (docs.vllm.ai,
"OpenAI-Compatible Server" and "Reasoning Outputs"), and SGLang (docs.sglang.io, "OpenAI APIs"); llama.cpp's /completion
(tools/server/README.md of github.com/ggml-org/llama.cpp, `completion_probabilities`); Ollama's /api/generate and
/api/chat (docs/api.md of github.com/ollama/ollama, `logprobs`; docs.ollama.com, "Thinking"). Each whole, as a list, or
as the lines of a stream.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import TraceError
from tokenglass.model.records.steps import Reason

NOT_TOLD = -9999.0  # OpenAI's log-probability of a token beyond the most probable ones
NANOSECONDS, MILLISECONDS = 1e-9, 1e-3
TOPS = ("top_logprobs", "top_probs", "probs")
ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")
TAKES_A_PLACE = "vllm"  # in whose chat answers a chosen token that is none of the candidates takes the place of one
ENDS: dict[str, Reason] = {"stop": "eos", "length": "length", "eos": "eos", "limit": "length", "word": "stop"}

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportedToken:
    """A token and what a server says of it. None: not reported."""

    piece: bytes
    token_id: int | None = None
    logprob: float | None = None  # of the model, before sampling
    prob: float | None = None  # of what was sampled
    top: tuple[ReportedToken, ...] = ()


@dataclass(slots=True)
class ReportedText:
    """One of the texts of a response."""

    tokens: list[ReportedToken] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)  # what a stream says as text, which no special token is part of
    thoughts: list[str] = field(default_factory=list)  # the same of a thought, where a server tells it apart
    reason: Reason | None = None


@dataclass(slots=True)
class Response:
    """What one request was answered, of whichever server."""

    server: str
    name: str | None  # by which the lines of a stream belong together
    model: str
    prompt: str = ""
    prompt_ids: tuple[int, ...] = ()
    prompt_length: int | None = None
    new_tokens: int | None = None  # of all texts
    prefill_seconds: float = 0.0
    seconds_per_token: float = 0.0
    num_candidates: int | None = None  # that were asked for beside each token, where that is known
    texts: dict[int, ReportedText] = field(default_factory=dict)

    def text(self, number: int) -> ReportedText:
        return self.texts.setdefault(number, ReportedText())

    @property
    def is_open(self) -> bool:
        return any(text.reason is None for text in self.texts.values()) or not self.texts


def read_responses(content: bytes) -> list[Response]:
    """All responses of a file. Raises TraceError where one is of no shape that is known, or has no probabilities."""
    responses: list[Response] = []
    for document in documents(content):
        read, server = reader_of(document)
        name = document["id"] if isinstance(document.get("id"), str) else None
        last = responses[-1] if responses else None
        if last is None or (last.server, last.name) != (server, name) or (name is None and not last.is_open):
            last = Response(server, name, text_of(document.get("model", ""), "model"))
            responses.append(last)
        read(document, last)
    if not any(text.tokens for response in responses for text in response.texts.values()):
        raise TraceError("the response has no log-probabilities; ask the server for them (logprobs, or n_probs)")
    return responses


def documents(content: bytes) -> Iterator[Fields]:
    """The JSON objects of a file: one, a list of them, or one a line, as JSON lines or server-sent events have them."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(f"the response is not UTF-8 (byte {error.start:,})") from None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = list(lines(text))
    for value in values if isinstance(values, list) else [values]:
        if not isinstance(value, dict):
            raise TraceError(f"expected a response as a JSON object, found {quote(value)}")
        yield value


def lines(text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if event := event_of(line):
                yield json.loads(event)
        except (ValueError, RecursionError) as error:
            raise TraceError(f"line {number:,}: not JSON ({error})") from None


def event_of(line: str) -> str:
    """The JSON of a line: of JSON lines, or of an event that a server sends; empty where there is none."""
    event = line.strip().removeprefix("data:").strip()
    return "" if event == "[DONE]" or line.startswith((":", "event:", "id:", "retry:")) else event


def reader_of(document: Fields) -> tuple[Callable[[Fields, Response], None], str]:
    """What reads a document of this shape, and whose shape it is."""
    if "error" in document:
        raise TraceError(f"the response is an error of the server: {quote(document['error'])}")
    if "choices" in document:
        is_vllm = any(name in document for name in ("prompt_logprobs", "prompt_token_ids", "kv_transfer_params"))
        return read_openai, "vllm" if is_vllm else "openai"
    if "done" in document:
        return read_ollama, "ollama"
    if "completion_probabilities" in document or {"content", "stop"} <= document.keys():
        return read_llama_cpp, "llama.cpp"
    raise TraceError("the response is none of OpenAI's shape, llama.cpp's or Ollama's")


def read_openai(document: Fields, response: Response) -> None:
    """A completion or a chat completion, or a line of its stream."""
    usage = fields_of(document.get("usage"), "usage")
    response.prompt_length = whole(usage.get("prompt_tokens")) or response.prompt_length
    response.new_tokens = whole(usage.get("completion_tokens")) or response.new_tokens
    ids = document.get("prompt_token_ids")
    response.prompt_ids = whole_numbers(ids) or response.prompt_ids
    for place, each in enumerate(list_of(document.get("choices"), "choices")):
        choice = fields_of(each, "choices")
        number = whole(choice.get("index"))
        text = response.text(place if number is None else number)
        logprobs = fields_of(choice.get("logprobs"), "logprobs")
        if "tokens" in logprobs:
            tokens = within(list(token_columns(logprobs)), response.num_candidates)
        else:
            tokens = list(entries(logprobs.get("content")))
            if response.server == TAKES_A_PLACE:
                tokens = [without_last(token) for token in tokens]
        response.prompt_ids = whole_numbers(choice.get("prompt_token_ids")) or response.prompt_ids
        ids = whole_numbers(choice.get("token_ids"))
        if len(ids) == len(tokens):
            tokens = [replace(token, token_id=token_id) for token, token_id in zip(tokens, ids, strict=True)]
        text.tokens += tokens
        message = fields_of(choice.get("delta") or choice.get("message"), "delta")
        text.parts.append(text_of(choice.get("text") or message.get("content") or "", "text"))
        text.thoughts.append(text_of(message.get("reasoning") or message.get("reasoning_content") or "", "reasoning"))
        if isinstance(reason := choice.get("finish_reason"), str):
            matched = choice.get("stop_reason") or choice.get("matched_stop")  # vLLM's name, and SGLang's
            is_stop = reason == "stop" and isinstance(matched, str)
            text.reason = "stop" if is_stop else ENDS.get(reason, "stop")


def token_columns(logprobs: Fields) -> Iterator[ReportedToken]:
    """The tokens of a completion, which has a list for each kind of number; one without a number has no token before
    it."""
    tokens = list_of(logprobs.get("tokens"), "tokens")
    numbers = list_of(logprobs.get("token_logprobs"), "token_logprobs")
    tops = list_of(logprobs.get("top_logprobs"), "top_logprobs") or [None] * len(tokens)
    if not len(tokens) == len(numbers) == len(tops):
        raise TraceError("tokens, token_logprobs and top_logprobs are not of one length")
    for token, value, top in zip(tokens, numbers, tops, strict=True):
        pairs = fields_of(top, "top_logprobs").items()
        beside = [ReportedToken(piece_of(name), None, logprob_of(number)) for name, number in pairs]
        yield ReportedToken(piece_of(token), None, logprob_of(value), None, by_likelihood(beside))


def within(tokens: Sequence[ReportedToken], most: int | None) -> list[ReportedToken]:
    """The tokens of a completion with the candidates that were asked for. One that is none of them stands behind them
    (OpenAI's API reference, completions, `logprobs`), where its place is no rank."""
    most = num_asked_for(tokens) if most is None else most
    return [replace(token, top=token.top[:most]) for token in tokens]


def without_last(token: ReportedToken) -> ReportedToken:
    """The token without its place among the candidates where that is the last, which a less probable one takes too."""
    is_last = len(token.top) > 1 and token.top[-1].piece == token.piece
    return replace(token, top=token.top[:-1]) if is_last else token


def num_asked_for(tokens: Iterable[ReportedToken]) -> int:
    """How many candidates a completion was asked for, or one less where its numbers leave that open."""
    listed = [token for token in tokens if token.top]
    counts = {len(token.top) for token in listed}
    inside = {len(token.top) for token in listed if token.top[-1].piece != token.piece}
    if inside or not counts:
        return max(inside, default=0)
    return min(counts) if len(counts) > 1 else max(1, min(counts) - 1)


def entries(value: Any, *, has_top: bool = True) -> Iterator[ReportedToken]:
    """Tokens that are objects: token, logprob, bytes, top_logprobs, and with llama.cpp id, or prob and top_probs."""
    for each in list_of(value, "logprobs"):
        entry = fields_of(each, "logprobs")
        top = next((entry[key] for key in TOPS if entry.get(key)), None) if has_top else None
        name = next((entry[key] for key in ("token", "tok_str", "content") if key in entry), "")
        yield ReportedToken(
            piece_of(name, entry.get("bytes")),
            whole(entry.get("id")),
            logprob_of(entry.get("logprob")),
            share(entry.get("prob")),
            by_likelihood(entries(top, has_top=False)),
        )


def read_llama_cpp(document: Fields, response: Response) -> None:
    """An answer of /completion, or a line of its stream. `prob` is of the distribution that was sampled."""
    text = response.text(whole(document.get("index")) or 0)
    text.tokens += old_entries(entries(document.get("completion_probabilities")))
    text.parts.append(text_of(document.get("content", ""), "content"))
    response.new_tokens = whole(document.get("tokens_predicted")) or response.new_tokens
    response.prompt = text_of(document.get("prompt", response.prompt), "prompt")
    response.prompt_length = whole(document.get("tokens_evaluated")) or response.prompt_length
    timings = fields_of(document.get("timings"), "timings")
    response.prefill_seconds = seconds(timings.get("prompt_ms"), MILLISECONDS) or response.prefill_seconds
    response.seconds_per_token = (
        seconds(timings.get("predicted_per_token_ms"), MILLISECONDS) or response.seconds_per_token
    )
    if document.get("stop"):
        text.reason = ENDS.get(str(document.get("stop_type")), "stop")


def old_entries(tokens: Iterable[ReportedToken]) -> Iterator[ReportedToken]:
    """Before December 2024 a token had no number of its own, but stood among the others."""
    for token in tokens:
        same = next((each for each in token.top if each.piece == token.piece), None)
        if token.logprob is None and token.prob is None and same is not None:
            yield ReportedToken(token.piece, token.token_id, same.logprob, same.prob, token.top)
        else:
            yield token


def read_ollama(document: Fields, response: Response) -> None:
    """An answer of /api/generate or /api/chat, or a line of its stream."""
    text = response.text(0)
    text.tokens += entries(document.get("logprobs"))
    message = fields_of(document.get("message"), "message")
    text.parts.append(text_of(document.get("response") or message.get("content") or "", "response"))
    text.thoughts.append(text_of(document.get("thinking") or message.get("thinking") or "", "thinking"))
    response.prompt_length = whole(document.get("prompt_eval_count")) or response.prompt_length
    response.prefill_seconds = seconds(document.get("prompt_eval_duration"), NANOSECONDS) or response.prefill_seconds
    count = whole(document.get("eval_count"))
    if count:
        response.new_tokens = count
        response.seconds_per_token = seconds(document.get("eval_duration"), NANOSECONDS) / count
    if document.get("done"):
        text.reason = ENDS.get(str(document.get("done_reason", "stop")), "stop")


def by_likelihood(tokens: Iterable[ReportedToken]) -> tuple[ReportedToken, ...]:
    """The most probable first."""
    return tuple(sorted(tokens, key=lambda token: (-likelihood(token), token.piece)))


def likelihood(token: ReportedToken) -> float:
    """A number to rank by."""
    if token.logprob is not None:
        return token.logprob
    return math.log(token.prob) if token.prob else -math.inf


def piece_of(token: Any, exact: Any = None) -> bytes:
    """The bytes of a token: those that are told, or those of its text, in which OpenAI spells out half characters."""
    if isinstance(exact, list) and all(type(byte) is int and 0 <= byte < 256 for byte in exact) and exact:
        return bytes(exact)
    text = text_of(token, "token")
    if text.startswith("token_id:"):
        raise TraceError("the tokens are ids without their text; ask vLLM without return_tokens_as_token_ids")
    piece = text.encode("utf-8", "replace")
    if text.startswith("bytes:\\x"):
        return ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), piece.removeprefix(b"bytes:"))
    return piece


def logprob_of(value: Any) -> float | None:
    logprob = number(value)
    return None if logprob is None or logprob <= NOT_TOLD else min(logprob, 0.0)


def share(value: Any) -> float | None:
    prob = number(value)
    return None if prob is None else min(max(prob, 0.0), 1.0)


def number(value: Any) -> float | None:
    """A finite number; None for null. Raises TraceError for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TraceError(f"expected a number, found {quote(value)}")
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def seconds(value: Any, unit: float) -> float:
    return max(0.0, (number(value) or 0.0) * unit)


def whole(value: Any) -> int | None:
    """A whole number that 62 bits hold, 0 or more; None for anything else."""
    return value if type(value) is int and 0 <= value < 2**62 else None


def whole_numbers(value: Any) -> tuple[int, ...]:
    numbers = tuple(map(whole, value)) if isinstance(value, list) else ()
    return tuple(each for each in numbers if each is not None) if None not in numbers else ()


def text_of(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TraceError(f"{name} is {quote(value)}; expected text")
    return value


def list_of(value: Any, name: str) -> list[Any]:
    """A list; empty for null."""
    if not (value is None or isinstance(value, list)):
        raise TraceError(f"{name} is {quote(value)}; expected a list")
    return value or []


def fields_of(value: Any, name: str) -> Fields:
    """An object; empty for null."""
    if not (value is None or isinstance(value, dict)):
        raise TraceError(f"{name} is {quote(value)}; expected an object")
    return value or {}

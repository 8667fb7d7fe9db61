"""What a server says when it is busy, breaks off, or says what nobody can read: whatever came is kept."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import responses
from served_records import RAW, choices_of, records_of
from server_stand_in import LINES, SERVERS, Reply, cut_short, events, json_reply, ndjson, serve
from shell import assert_one_line_error, generate, tokenglass

from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ServerError
from tokenglass.model.importers.responses import ReportedToken
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.trace import from_line, to_line
from tokenglass.model.sources.server.address import Address
from tokenglass.model.sources.server.client import Client
from tokenglass.model.sources.server.lines import split_lines
from tokenglass.model.sources.server.pieces import Pieces
from tokenglass.model.sources.server.probe import probe
from tokenglass.model.sources.server.source import ServerSource

BUSY = Reply(status=503, headers={"Retry-After": "0"})


def test_a_busy_server_is_asked_again_before_the_first_token() -> None:
    with serve(SERVERS["openai"](**{"/v1/completions": [BUSY, BUSY, events(responses.COMPLETION_STREAM)]})) as stand_in:
        assert choices_of(records_of(stand_in))
        assert [path for path, _ in stand_in.asked].count("/v1/completions") == 3
    with (
        serve(SERVERS["openai"](**{"/v1/completions": BUSY})) as stand_in,
        pytest.raises(ServerError, match="HTTP 503"),
    ):
        records_of(stand_in)
    wait = Reply(status=429, headers={"Retry-After": "3600"})
    with serve(SERVERS["openai"](**{"/v1/completions": wait})) as stand_in, pytest.raises(ServerError, match="3,600 s"):
        records_of(stand_in)


def test_retry_after_is_waited_for() -> None:
    busy = Reply(status=429, headers={"Retry-After": "1"})
    with serve(SERVERS["openai"](**{"/v1/completions": [busy, events(responses.COMPLETION_STREAM)]})) as stand_in:
        begun = time.monotonic()
        assert choices_of(records_of(stand_in))
        assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (events(responses.COMPLETION_STREAM[:2], breaks=True), "broke off"),
        (cut_short(), "before the text had ended"),
        (cut_short(b'data: {"error": {"message": "out of \\u001b[1mmemory"}}\n'), "out of \\x1b[1mmemory"),
        (cut_short(b"data: hello\n"), "cannot be read"),
        (cut_short(b'data: {"choices": 5}\n'), "expected a list"),
        (cut_short(b"data: [1]\n"), "expected a JSON object"),
        (cut_short(b"\xff\n"), "not UTF-8"),
        (cut_short(b"data: " + b"[" * 9999 + b"\n"), "cannot be read"),
        (cut_short(b": ping\n" * 500, endless=True), "without a token"),
    ],
    ids=["cut", "ends early", "error", "no JSON", "wrong type", "a list", "no UTF-8", "nested", "endless"],
)
def test_what_came_is_kept_and_one_line_says_why_it_ended(reply: Reply, words: str, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    with serve(SERVERS["openai"](**{"/v1/completions": reply})) as stand_in:
        done = generate("-m", stand_in.address, "x", "--quiet", "--trace", str(trace))
        assert done.returncode == 1
        assert done.stdout == b" fox"
        (line,) = done.stderr.decode().splitlines()
        assert words in line
        assert stand_in.address.removeprefix("http://") in line
    *_, finish = [from_line(line) for line in trace.read_text().splitlines()]
    assert (finish.reason, finish.whole_text) == ("error", " fox")
    assert tokenglass("replay", str(trace)).stdout == b" fox"


def test_an_endless_text_is_ended_at_its_length() -> None:
    token = responses.completion_chunk(text=" fox", logprobs=responses.column(0))
    with serve(SERVERS["openai"](**{"/v1/completions": events([token], endless=True)})) as stand_in:
        stand_in.replies["/v1/completions"].body.pop()  # type: ignore[union-attr]  # [DONE]
        records = records_of(stand_in, Request((-1,), 1, RAW, max_new_tokens=4))
        assert [record.text for record in records] == [" fox"] * 4 + [""]
        assert isinstance(records[-1], Finish)
        assert records[-1].reason == "length"
        assert stand_in.closed.wait(10), "the request is closed"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=302, headers={"Location": "file:///etc/passwd"}), "redirect"),
        (Reply(status=404), "no /v1/models"),
        (Reply(b"<html>hello</html>", "text/html"), "not valid JSON"),
        (Reply(b"x", headers={"Content-Encoding": "gzip"}), "compressed"),
        (json_reply({"object": "list", "data": []}), "--remote-model"),
        (json_reply({"error": "model \x1b]0;evil\x07 is broken"}, status=500), "\\x1b"),
    ],
    ids=["redirect", "no server", "html", "compressed", "no model", "control characters"],
)
def test_what_is_no_server_is_one_line(reply: Reply, words: str) -> None:
    with serve({"/v1/models": reply}) as stand_in:
        code = 2 if words == "--remote-model" else 1
        assert_one_line_error(generate("-m", stand_in.address, "x"), code, words)


def test_nobody_there_is_one_line() -> None:
    assert_one_line_error(generate("-m", "http://127.0.0.1:9", "x"), 1, "127.0.0.1:9", "cannot be reached")


def test_lines_are_cut_at_newlines_and_bounded() -> None:
    assert list(split_lines([b"a\r\nb", b"c\n\n", "dé".encode()], "host")) == ["a", "bc", "", "dé"]
    with pytest.raises(ServerError, match="a line of more than"):
        list(split_lines(iter([b"x" * 600_000] * 4), "host", most=2**20))


def test_text_is_paired_with_the_tokens_that_made_it() -> None:
    fox, half, rest, end = (ReportedToken(piece) for piece in (b" fox", b"\xc3", b"\xa9", b"</s>"))
    pieces = Pieces()
    assert list(pieces.pair((fox, half), " fox")) == [(fox, ""), (half, " fox")]
    assert list(pieces.pair((rest, fox), "é fox")) == [(rest, "é"), (fox, " fox")]
    assert list(pieces.pair((end,), "")) == [(end, "")]
    pieces = Pieces()
    assert list(pieces.pair((fox,), "é fox")) == [(ReportedToken("é".encode()), "é"), (fox, " fox")], "untold"
    assert list(pieces.pair((), "more")) == [(ReportedToken(b"more"), "more")]
    assert list(pieces.pair((), "")) == []


def test_a_stream_of_json_lines_may_come_in_any_parts() -> None:
    content = b"".join(f"{json.dumps(chunk)}\n".encode() for chunk in responses.OLLAMA_STREAM)
    parts = [content[at : at + 7] for at in range(0, len(content), 7)]
    with serve(SERVERS["ollama"](**{"/api/generate": Reply(parts, LINES)})) as stand_in:
        whole = records_of(stand_in)
        stand_in.replies["/api/generate"] = ndjson(responses.OLLAMA_STREAM)
        assert choices_of(whole) == choices_of(records_of(stand_in))


@pytest.mark.parametrize("name", SERVERS)
def test_mutated_streams_are_records_or_one_clear_line(name: str) -> None:
    """Wrong types, missing fields and odd numbers anywhere: whatever has come is ended by a Finish."""
    chance = random.Random(7)
    values: tuple[Any, ...] = (None, "", "x", -1, 10**400, 1e308, True, [], {}, [[]], float("nan"), "\x1b[2J")

    def mutate(value: Any) -> Any:
        if chance.random() < 0.04:
            return chance.choice(values)
        if isinstance(value, dict):
            return {key: mutate(each) for key, each in value.items() if chance.random() > 0.02}
        return [mutate(each) for each in value] if isinstance(value, list) else value

    stream, path, kind = {
        "openai": (responses.COMPLETION_STREAM, "/v1/completions", events),
        "vllm": (responses.VLLM_STREAM, "/v1/completions", events),
        "sglang": (responses.COMPLETION_STREAM, "/v1/completions", events),
        "ollama": (responses.OLLAMA_STREAM, "/api/generate", ndjson),
    }[name]
    with serve(SERVERS[name]()) as stand_in:
        client = Client(Address.parse(stand_in.address))
        source = ServerSource(probe(client), "x")
        messages: list[str] = []
        for _ in range(100):
            stand_in.replies[path] = kind([mutate(chunk) for chunk in stream])
            records: list[Record] = []
            try:
                for record in source.records(Request((-1,), 1, RAW, max_new_tokens=10), threading.Event()):
                    records.append(record)
            except ServerError as error:
                messages.append(str(error))
            assert isinstance(records[-1], Finish)
            for record in records:
                assert to_line(from_line(to_line(record))) == to_line(record)
        client.close()
    assert 0 < len(messages) < 100
    assert all(words.isprintable() for words in messages)

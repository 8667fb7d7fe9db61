"""Small servers on loopback in the place of vLLM, SGLang, Ollama and OpenAI: their paths, and answers in their shapes.

Where each field is taken from: responses.py names the documentation of the responses. `owned_by` and `max_model_len` of
/v1/models: docs.vllm.ai, "OpenAI-Compatible Server"; docs.sglang.io, "OpenAI APIs". /tokenize: docs.vllm.ai,
"Tokenizer API". /api/version: docs/api.md of github.com/ollama/ollama, "Version". Errors: platform.openai.com/docs,
"Error codes"; docs/errors of Ollama. Retry-After: RFC 9110, section 10.2.3.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import responses

Json = dict[str, Any]
EVENTS, LINES, JSON = "text/event-stream", "application/x-ndjson", "application/json"


@dataclass
class Reply:
    """What is answered: a body, its type, and what is wrong with it. `breaks` ends it in the midst of its chunks."""

    body: bytes | list[bytes] = b"{}"
    kind: str = JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    breaks: bool = False
    endless: bool = False  # the last part again and again


@dataclass
class StandIn:
    """`replies` by path: one reply, or several in turn; `asked` are the bodies, and `headers` those of each request."""

    replies: dict[str, Reply | list[Reply]]
    address: str = ""
    asked: list[tuple[str, Json]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)  # a client went away before the end

    @property
    def body(self) -> Json:
        """Of the last request."""
        return self.asked[-1][1]


def json_reply(value: Any, **more: Any) -> Reply:
    return Reply(json.dumps(value).encode(), **more)


def cut_short(*lines: bytes, **more: bool) -> Reply:
    """A token, and then something else."""
    return Reply([b'data: {"choices": [{"index": 0, "text": " fox"}]}\n', *lines], **more)


def events(chunks: list[Json], **more: Any) -> Reply:
    return Reply(
        [*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"], EVENTS, **more
    )


def ndjson(chunks: list[Json], **more: Any) -> Reply:
    return Reply([f"{json.dumps(chunk)}\n".encode() for chunk in chunks], LINES, **more)


def models(owner: str, *names: str, **more: Any) -> Reply:
    data = [{"id": name, "object": "model", "created": 1686935002, "owned_by": owner, **more} for name in names]
    return json_reply({"object": "list", "data": data})


def openai_server(**replies: Reply | list[Reply]) -> dict[str, Reply | list[Reply]]:
    return {
        "/v1/models": models("openai", "gpt-3.5-turbo-instruct"),
        "/v1/completions": events(responses.COMPLETION_STREAM),
        "/v1/chat/completions": events(responses.CHAT_STREAM),
        **replies,
    }


def vllm_server(**replies: Reply | list[Reply]) -> dict[str, Reply | list[Reply]]:
    return {
        "/v1/models": models("vllm", "Qwen/Qwen3-0.6B", max_model_len=4096),
        "/tokenize": json_reply({"count": 2, "max_model_len": 4096, "tokens": [785, 38835]}),
        "/v1/completions": events(responses.VLLM_STREAM),
        "/v1/chat/completions": events(responses.CHAT_STREAM),
        **replies,
    }


def sglang_server(**replies: Reply | list[Reply]) -> dict[str, Reply | list[Reply]]:
    return {
        "/v1/models": models("sglang", "qwen/qwen2.5-0.5b-instruct", max_model_len=32768),
        "/v1/completions": events(responses.COMPLETION_STREAM),
        "/v1/chat/completions": events(responses.CHAT_STREAM),
        **replies,
    }


def ollama_server(**replies: Reply | list[Reply]) -> dict[str, Reply | list[Reply]]:
    return {
        "/v1/models": models("library", "gemma3:latest"),
        "/api/version": json_reply({"version": "0.12.11"}),
        "/api/generate": ndjson(responses.OLLAMA_STREAM),
        "/api/chat": ndjson(responses.OLLAMA_CHAT_STREAM),
        **replies,
    }


SERVERS: dict[str, Callable[..., dict[str, Reply | list[Reply]]]] = {
    "openai": openai_server,
    "vllm": vllm_server,
    "sglang": sglang_server,
    "ollama": ollama_server,
}


@contextmanager
def serve(replies: dict[str, Reply | list[Reply]]) -> Iterator[StandIn]:
    stand_in = StandIn(replies)
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer({})

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, body: Json) -> None:
            stand_in.asked.append((self.path, body))
            stand_in.headers.append(dict(self.headers))
            found = stand_in.replies.get(self.path, Reply(status=404))
            reply = found if isinstance(found, Reply) else found.pop(0) if len(found) > 1 else found[0]
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Connection", "close")
            self.close_connection = True
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if isinstance(reply.body, bytes):
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in reply.body:
                self.chunk(part)
            while reply.endless and not done.is_set():
                self.chunk(reply.body[-1])
            if not reply.breaks:
                self.chunk(b"")

        def chunk(self, part: bytes) -> None:
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                stand_in.closed.set()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        done.set()
        server.shutdown()
        server.server_close()

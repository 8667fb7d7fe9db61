"""A small stand-in for the Hugging Face Hub on loopback: one model, files in parts, and the errors it answers with."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """What it serves, how many bytes of a file it sends before it falls silent, and what it was asked for."""

    files: dict[str, bytes]
    address: str = ""
    silent_after: int | None = None
    half_sent: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range


def file_entry(name: str, content: bytes) -> dict[str, object]:
    """How the Hub describes a file; large ones with their hash."""
    entry: dict[str, object] = {"rfilename": name, "size": len(content)}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
    return entry


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            match path.strip("/").split("/"):
                case ["api", "models", "org", "fox", *rest]:
                    if rest not in ([], ["revision", "main"], ["revision", "v1"], ["revision", COMMIT]):
                        self.refuse(404, "RevisionNotFound")
                    else:
                        self.send(200, json.dumps(self.listing()).encode(), {"Content-Type": "application/json"}, body)
                case ["org", "fox", "resolve", _, *name] if "/".join(name) in hub.files:
                    self.send_file(hub.files["/".join(name)], path, body)
                case ["api", "models", "org", "gated", *_]:
                    self.refuse(403, "GatedRepo")
                case _:
                    self.refuse(404, "RepoNotFound")

        def listing(self) -> dict[str, object]:
            siblings = [file_entry(name, content) for name, content in hub.files.items()]
            return {"id": "org/fox", "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}}

        def send_file(self, content: bytes, path: str, body: bool) -> None:
            etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            asked = self.headers.get("Range", "")
            start = int(asked.removeprefix("bytes=").partition("-")[0] or 0) if asked else 0
            if body:
                hub.asked.append((path, asked))
            part = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            self.send(206 if start else 200, content[start:], {**etag, **part, "Accept-Ranges": "bytes"}, body)

        def send(self, code: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body and hub.silent_after is not None and len(content) > hub.silent_after:
                self.wfile.write(content[: hub.silent_after])
                self.wfile.flush()
                hub.half_sent.set()
                done.wait(60)
            elif body:
                self.wfile.write(content)

        def refuse(self, code: int, name: str) -> None:
            self.send(code, b"{}", {"X-Error-Code": name, "X-Error-Message": name}, True)

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client went away
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        done.set()
        server.shutdown()
        server.server_close()

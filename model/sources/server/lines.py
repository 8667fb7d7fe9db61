"""The lines of a response as they come, read by a thread: whoever waits for them sees an interrupt at once."""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tokenglass.model.errors import ServerError
from tokenglass.model.files import MIB
from tokenglass.model.sources.server.client import Client, Fields

MOST_LINE = 16 * MIB  # bytes: a thousand candidates are a tenth of one, and the last line may repeat the prompt
MOST_WAITING = 64  # lines that have come and were not taken yet
POLL = 0.05  # seconds between two looks at the interrupt


class LineStream:
    """A request whose answer is lines; leaving it closes the connection, so that the server stops."""

    def __init__(self, client: Client, path: str, body: Fields):
        self._client = client
        self._request = (path, body)
        self._lines: queue.Queue[str | Exception | None] = queue.Queue(MOST_WAITING)
        self._closing = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._read, name="server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        self._shut_down()
        self._thread.join(1.0)

    def until(self, is_over: Callable[[], bool]) -> Iterator[str]:
        """Each line when it comes; none once `is_over` says so, which is asked many times a second.

        Raises ServerError.
        """
        while not is_over():
            with suppress(queue.Empty):
                line = self._lines.get(timeout=POLL)
                if line is None:
                    return
                if isinstance(line, Exception):
                    raise line
                yield line

    def _read(self) -> None:
        """What the thread does."""
        path, body = self._request
        try:
            with self._client.open("POST", path, body, closing=self._closing, trace=self._watch) as response:
                self._client.check(response)
                for line in split_lines(response.iter_raw(), self._client.address.name):
                    self._put(line)
            self._put(None)
        except Exception as error:  # whoever waits for lines raises it
            self._put(error)

    def _put(self, line: str | Exception | None) -> None:
        while not self._closing.is_set():
            with suppress(queue.Full):
                self._lines.put(line, timeout=POLL)
                return

    def _watch(self, event: str, facts: dict[str, Any]) -> None:
        """What httpx tells of a connection: its socket is what can be shut down while another thread reads it."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = facts["return_value"].get_extra_info("socket")
            if self._closing.is_set():
                self._shut_down()

    def _shut_down(self) -> None:
        """The reading thread wakes up, and closes a connection whose rest nobody wants: the server is told at once."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def split_lines(chunks: Iterable[bytes], name: str, most: int = MOST_LINE) -> Iterator[str]:
    """UTF-8 text line by line, without their ends. Raises ServerError for one that is too long, or other bytes."""
    buffer = bytearray()
    for chunk in chunks:
        start = len(buffer)
        buffer += chunk
        while (end := buffer.find(b"\n", start)) >= 0:
            yield decode_line(bytes(buffer[:end]), name)
            del buffer[: end + 1]
            start = 0
        if len(buffer) > most:
            raise ServerError(f"{name}: the server sent a line of more than {most // MIB} MiB")
    if buffer:
        yield decode_line(bytes(buffer), name)


def decode_line(line: bytes, name: str) -> str:
    try:
        return line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError:
        raise ServerError(f"{name}: the server sent a line that is not UTF-8") from None

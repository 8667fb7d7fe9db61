"""Requests to one server: JSON in and out, nothing without a bound, and one clear line for whatever goes wrong."""

from __future__ import annotations

import importlib
import json
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tokenglass.model.errors import ParameterError, ServerError
from tokenglass.model.files import MIB, parse_json
from tokenglass.model.sources.server.address import Address
from tokenglass.model.sources.server.failures import BUSY, explain, refusal, wait_for

if TYPE_CHECKING:
    import httpx

CONNECT, SILENCE = 10.0, 300.0  # seconds: to the connection, and to the next byte
TRIES = 4
MOST_ERROR = 64 * 1024  # bytes that are read of a refusal
MOST_ANSWER = 256 * MIB

Fields = Mapping[str, Any]
Trace = Callable[[str, dict[str, Any]], None]


def find_key(address: Address, environment: Mapping[str, str]) -> str | None:
    """The key for a server: TOKENGLASS_API_KEY, else OPENAI_API_KEY where nobody on the way can read it.

    Raises ParameterError for one that no header can hold.
    """
    names = ("TOKENGLASS_API_KEY", *(["OPENAI_API_KEY"] if address.is_private else []))
    for name in names:
        if key := environment.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise ParameterError(f"{name} holds a character that no key has")
            return key
    return None


class Client:
    """Each request has a connection of its own, which can be closed while another goes on."""

    def __init__(self, address: Address, key: str | None = None):
        """Raises ServerError where httpx is not installed."""
        self.address = address
        self._library = library()
        self._key = key
        tls = self._library.create_ssl_context() if address.root.startswith("https") else no_tls()
        self._http = self._library.Client(
            verify=tls,
            timeout=self._library.Timeout(SILENCE, connect=CONNECT),
            limits=self._library.Limits(max_keepalive_connections=0),
            headers={
                "User-Agent": "tokenglass",
                "Accept-Encoding": "identity",
                **({} if key is None else {"Authorization": f"Bearer {key}"}),
            },
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> Fields | None:
        """A JSON object; None where the server has no such path. Raises ServerError."""
        with self.open("GET", path) as response:
            if response.status_code in (404, 405, 415, 501):
                return None
            return self._read_object(response)

    def post(self, path: str, body: Fields) -> Fields:
        """A JSON object. Raises ServerError."""
        with self.open("POST", path, body) as response:
            return self._read_object(response)

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        body: Fields | None = None,
        *,
        closing: threading.Event | None = None,
        trace: Trace | None = None,
    ) -> Iterator[httpx.Response]:
        """A response whose body is still to be read. A server that is busy, or breaks off before it has answered, is
        asked again until `closing` is set. Raises ServerError."""
        closing = closing or threading.Event()
        content = None if body is None else json.dumps(body).encode()
        for attempt in range(TRIES):
            request = self._http.build_request(
                method,
                self.address.root + path,
                content=content,
                headers=None if content is None else {"Content-Type": "application/json"},
                extensions={} if trace is None else {"trace": trace},
            )
            is_last = attempt == TRIES - 1
            retry_after = None
            try:
                response = self._http.send(request, stream=True)
            except (self._library.HTTPError, self._library.InvalidURL) as error:
                if (
                    is_last
                    or closing.is_set()
                    or not isinstance(error, self._library.ReadError | self._library.RemoteProtocolError)
                ):
                    raise self._explain(error) from None
            else:
                if is_last or response.status_code not in BUSY:
                    break
                retry_after = response.headers.get("Retry-After")
                response.close()
            if closing.wait(wait_for(self.address.name, retry_after, attempt)):
                raise ServerError(f"{self.address.name}: nobody waits for the answer any more")
        try:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ServerError(f"{self.address.name}: the answer is compressed, which was not asked for")
            yield response
        except (self._library.HTTPError, self._library.StreamError) as error:
            raise self._explain(error) from None
        finally:
            response.close()

    def check(self, response: httpx.Response) -> None:
        """Raises ServerError for an answer that is no success."""
        if response.status_code != 200:
            content = read_at_most(response.iter_raw(), MOST_ERROR)
            error = refusal(self.address.name, response.status_code, content, has_key=self._key is not None)
            raise self.without_key(error)

    def without_key(self, error: ServerError) -> ServerError:
        """The same words, in which a server may have repeated the key."""
        return error if self._key is None else type(error)(str(error).replace(self._key, "[key]"), error.status)

    def _read_object(self, response: httpx.Response) -> Fields:
        self.check(response)
        content = read_at_most(response.iter_raw(), MOST_ANSWER + 1)
        if len(content) > MOST_ANSWER:
            raise ServerError(f"{self.address.name}: the answer is larger than {MOST_ANSWER // MIB} MiB")
        return parse_json(content, f"{self.address.name}: the answer", ServerError)

    def _explain(self, error: Any) -> ServerError:
        return self.without_key(explain(self.address.name, error, SILENCE))


def library() -> Any:
    """httpx. Raises ServerError where it is not installed."""
    try:
        return importlib.import_module("httpx")
    except ImportError:
        raise ServerError('a model behind http:// needs the extra "server"; pip install "tokenglass[server]"') from None


def no_tls() -> ssl.SSLContext:
    """For an address without TLS: it trusts nobody, and costs no reading of certificates."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def read_at_most(chunks: Iterable[bytes], most: int) -> bytes:
    """The first `most` bytes."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) >= most:
            break
    return bytes(content[:most])

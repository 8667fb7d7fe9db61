"""What goes wrong with a server, each in one line that holds no key and nothing unescaped."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ServerError, UnreachableError, first_line

if TYPE_CHECKING:
    import httpx

BUSY = (429, 502, 503, 504)  # worth another try
MOST_WAIT = 60.0  # seconds that a server may ask to wait


def explain(name: str, error: httpx.HTTPError | httpx.InvalidURL, timeout: float) -> UnreachableError:
    """What a failure of the connection means."""
    kind = type(error).__name__
    said = first_line(error)
    match kind:
        case "ConnectTimeout":
            return UnreachableError(f"{name}: no answer to the connection; is this the address of a server?")
        case "ConnectError":
            return UnreachableError(f"{name}: cannot be reached ({said}); is a server running there?")
        case "ReadTimeout":
            return UnreachableError(f"{name}: the server was silent for {timeout:,.0f} s")
        case "RemoteProtocolError" | "ReadError" | "WriteError" | "CloseError":
            return UnreachableError(f"{name}: the server broke off the connection")
    return UnreachableError(f"{name}: {said or kind}")


def refusal(name: str, status: int, content: bytes, *, has_key: bool) -> ServerError:
    """What an answer that is no success means."""
    said = message_of(content)  # of FastAPI it is `detail`
    because = f": {said}" if said else ""
    if 300 <= status < 400:
        return UnreachableError(
            f"{name}: the server answers with a redirect (HTTP {status}), which is not followed; "
            "give the address that it leads to",
            status,
        )
    if status in (401, 403):
        do = "check the key in TOKENGLASS_API_KEY" if has_key else "put its key into TOKENGLASS_API_KEY"
        return UnreachableError(f"{name}: the server refuses access (HTTP {status}){because}; {do}", status)
    kind = UnreachableError if status == 404 or status in BUSY else ServerError
    return kind(f"{name}: the server refuses the request (HTTP {status}){because}", status)


def message_of(content: bytes) -> str:
    """What the body of a refusal says; nothing where it is no JSON."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict):
        return ""
    return message_in(value) or next((one_line(value[key]) for key in ("message", "detail") if value.get(key)), "")


def message_in(document: dict[str, Any]) -> str:
    """What an object says of an error: OpenAI's shape, llama.cpp's and vLLM's, or Ollama's."""
    error = document.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    return one_line(said) if said else quote(error) if error else ""


def one_line(said: Any) -> str:
    """A server's words: one line, short."""
    return first_line(ServerError(" ".join(said.split()))) if isinstance(said, str) else quote(said)


def wait_for(name: str, retry_after: str | None, attempt: int) -> float:
    """Seconds before the next try: those that the server asks for (RFC 9110, Retry-After), else twice as many as last.

    Raises UnreachableError where they are too many.
    """
    seconds = 0.5 * 2**attempt
    if retry_after is not None and len(retry_after) < 100:
        try:
            asked = parsedate_to_datetime(retry_after).timestamp() - time()
        except (TypeError, ValueError, OverflowError):
            asked = float(retry_after) if retry_after.strip().isdecimal() else seconds
        seconds = max(0.0, asked)
    if seconds > MOST_WAIT:
        raise UnreachableError(f"{name}: the server is busy and asks to wait {seconds:,.0f} s; try again then")
    return seconds

"""The address of a server, as -m takes it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from tokenglass.model.config.fields import shown_name
from tokenglass.model.errors import ParameterError

SCHEMES = ("http", "https")


def is_address(model: str | None) -> bool:
    """Whether what a user calls a model is a server."""
    return model is not None and model.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


@dataclass(frozen=True, slots=True)
class Address:
    """`root` is what the paths of an API are added to, without the /v1 of OpenAI's."""

    root: str
    name: str  # host and port: what a message says, and a trace keeps
    is_private: bool  # nobody on the way can read what is sent

    @staticmethod
    def parse(text: str) -> Address:
        """Raises ParameterError, also for a key or a password in it, which would be kept in histories and logs."""
        url, port = split(text)
        if url.username is not None or url.password is not None or url.query or url.fragment:
            raise ParameterError(
                "-m: the address of a server is http://HOST:PORT and no more; a key goes into TOKENGLASS_API_KEY"
            )
        if not url.hostname or not url.hostname.isprintable() or " " in url.netloc:
            raise ParameterError(f"-m {shown_name(text)}: expected http://HOST:PORT")
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        name = host if port is None else f"{host}:{port}"
        path = url.path.rstrip("/").removesuffix("/v1")
        return Address(f"{url.scheme}://{name}{path}", name, url.scheme == "https" or is_loopback(url.hostname))


def split(text: str) -> tuple[SplitResult, int | None]:
    """The parts of an address, and its port. Raises ParameterError."""
    try:
        url = urlsplit(text)
        return url, url.port
    except ValueError:
        raise ParameterError(f"-m {shown_name(text)}: not the address of a server; expected http://HOST:PORT") from None


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False

"""Reading files that a stranger may have sent: regular ones only, and never more than a limit; writing whole ones.

No torch here.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from tokenglass.model.errors import ConfigError, TokenglassError

MIB = 2**20
MAX_CONFIG = MIB
MAX_TOKENIZER_CONFIG = 16 * MIB  # it may list every added token, and templates
MAX_TOKENIZER = 64 * MIB
MAX_INDEX = 16 * MIB  # the name and file of each tensor


def expand_home(path: str) -> Path:
    """A path whose ~ or ~user is a home folder; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def open_regular(path: Path) -> BufferedReader:
    """A regular file opened for reading.

    Raises OSError, also for what is none: a FIFO would wait for ever, and a device never end.
    """
    try:
        require_regular(path.stat(), path)  # before it is opened, which some devices notice
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:  # a null byte, or a character that the file system cannot write
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path)) from None
    try:
        require_regular(os.fstat(descriptor), path)  # it may have been replaced meanwhile
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def require_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_bytes(
    path: Path, limit: int, error: type[TokenglassError] = ConfigError, *, needed_by: str = "a checkpoint folder"
) -> bytes:
    """A regular file of at most `limit` bytes; an error says what needs it, if anything does. Raises `error`."""
    try:
        with open_regular(path) as opened:
            content = opened.read(limit + 1)
    except FileNotFoundError:
        raise error(f"{path}: no such file{f'; {needed_by} needs it' if needed_by else ''}") from None
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror})") from None
    if len(content) > limit:
        raise error(f"{path}: larger than {limit:,} bytes, refused")
    return content


def read_text(path: Path, limit: int, error: type[TokenglassError] = ConfigError) -> str:
    """The same as UTF-8 text. Raises `error`."""
    try:
        return read_bytes(path, limit, error).decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{path}: not UTF-8 text (byte {reason.start:,})") from None


def read_json(path: Path, limit: int = MAX_CONFIG) -> dict[str, Any]:
    """A JSON object from a file of at most `limit` bytes. Raises ConfigError."""
    return parse_json(read_bytes(path, limit), str(path))


def parse_json(content: bytes, where: str, error: type[TokenglassError] = ConfigError) -> dict[str, Any]:
    """A JSON object; of keys that are there twice, the last counts. Raises `error`, with `where` first."""
    try:
        value = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise error(f"{where}: nested too deeply") from None
    except UnicodeDecodeError as reason:
        raise error(f"{where}: not valid JSON (byte {reason.start:,} is not UTF-8)") from None
    except json.JSONDecodeError as reason:
        raise error(f"{where}: not valid JSON ({reason})") from None
    except ValueError:
        raise error(f"{where}: not valid JSON (a number of too many digits)") from None
    if not isinstance(value, dict):
        raise error(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def write_whole(text: str, path: Path, *, new: bool) -> None:
    """Write a file whole or not at all. Raises OSError, ValueError; FileExistsError where a `new` one is there."""
    content = text.encode("utf-8")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    if new:
        path.touch(exist_ok=False)
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(path)
    except BaseException:
        if new:
            path.unlink(missing_ok=True)
        raise
    finally:
        part.unlink(missing_ok=True)

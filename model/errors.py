"""The errors a user can cause, each with a message that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc")
MAX_QUOTED = 240  # characters of another library's message


class TokenglassError(Exception):
    """Something the user gave cannot be used; the message is one line and says what to do."""


class ConfigError(TokenglassError):
    """config.json is missing, malformed, or asks for something that is not implemented."""


class CheckpointError(TokenglassError):
    """The weights are missing, damaged, or do not fit the config."""


class TokenizerError(TokenglassError):
    """tokenizer.json is missing, malformed, or does not fit the model."""


class TemplateError(TokenglassError):
    """There is no chat template, or it cannot be used."""


class GGUFError(TokenglassError):
    """A GGUF file is damaged, incomplete, or holds something that cannot be imported."""


class StoreError(TokenglassError):
    """A model's name is not known, or it cannot be fetched, kept or removed."""


class MadeMeanwhile(StoreError):  # noqa: N818  (it ends well)
    """Another process did the same work while this one waited for it; its result is there."""


class CacheFileError(TokenglassError):
    """A saved cache is damaged, or of another model."""


class PromptError(TokenglassError):
    """The prompt is empty or does not fit in the context."""


class ParameterError(TokenglassError):
    """A sampling or generation parameter is out of range."""


class TraceError(TokenglassError):
    """A trace line is not one of ours, or of a version this program does not know."""


class EngineError(TokenglassError):
    """The model computed something that cannot be sampled from, or a device or the memory is not there."""


class ServerError(TokenglassError):
    """A server cannot be reached, refuses a request (with an HTTP status), breaks off, or sends what is no answer."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class UnreachableError(ServerError):
    """A server is not there, breaks off, or turns everybody away: the next request would end as this one did."""


class KernelsError(Exception):
    """The kernels cannot be had on this machine, and torch runs the model; the message says why."""


class NothingPossible(TokenglassError):  # noqa: N818  (a finish reason, more than an error)
    """Constraints and processors together leave no token to choose."""


def did_you_mean(word: str, names: Mapping[str, str] | Iterable[str], most: int = 3) -> str:
    """The end of a message about a name that is not known: the names that are like it, or nothing.

    A mapping gives what to say for each name. Alike are those with the same letters but for a few (the ratio of
    difflib, which is Ratcliff and Obershelp's), and those that have the word as a part.
    """
    said = names if isinstance(names, Mapping) else {name: name for name in names}
    sought = letters(word)
    likeness = {name: SequenceMatcher(None, sought, letters(name)).ratio() for name in said}
    alike = [name for name in said if likeness[name] >= 0.78 or (len(sought) > 3 and sought in letters(name))]
    same = [name for name in alike if likeness[name] == 1]
    ranked = same or sorted(alike, key=lambda name: -likeness[name])
    meant = list(dict.fromkeys(said[name] for name in ranked))[:most]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def letters(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


def first_line(error: BaseException) -> str:
    """What another library's error says, for a message of one line: short, as it may quote a file, and escaped."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    short = line if len(line) <= MAX_QUOTED else f"{line[:MAX_QUOTED]}…"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in short)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had: torch says so by RuntimeErrors of many wordings, C++ by std::bad_alloc."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or any(words in said for words in OUT_OF_MEMORY)

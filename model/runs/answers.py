"""What one of many prompts was answered: a line of JSON, the seed that it was written with, and who wrote it."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

from tokenglass.model.records.steps import ABSENT, Choice, Reason


@dataclass(frozen=True, slots=True)
class Origin:
    """What all lines of a run have in common: a line of another origin is no part of it.

    `settings` is a digest of everything else that decides the texts.
    """

    model: str
    run_seed: int
    settings: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One line. `id` is the prompt's own, or its line number; `seed` gives the same text alone.

    A prompt that could not be answered, or not to its end, has the reason "error" and the `error`.
    """

    id: Any
    line: int
    text: str = ""
    finish_reason: Reason
    seed: int
    prompt_tokens: int | None = 0  # None: not reported
    new_tokens: int = 0
    choices: tuple[Choice, ...] | None = field(default=None, metadata=ABSENT)  # those that stand, where asked for
    error: str | None = field(default=None, metadata=ABSENT)
    model: str
    run_seed: int
    settings: str


def derive_seed(run_seed: int, prompt_id: Any) -> int:
    """The seed of a prompt, 32 bits, from the run's seed and the prompt's id: never from its place among the others."""
    key = struct.pack("<Q", run_seed) + id_text(prompt_id)
    return int.from_bytes(hashlib.blake2b(key, digest_size=4, person=b"tokenglass id").digest(), "little")


def fingerprint(prompt_id: Any) -> int:
    """64 bits that stand for an id."""
    return int.from_bytes(hashlib.blake2b(id_text(prompt_id), digest_size=8).digest(), "little")


def settings_digest(settings: Any) -> str:
    """Eight hexadecimal digits that stand for settings, given as JSON values."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def id_text(prompt_id: Any) -> bytes:
    """An id as JSON: the text "1" is another one than the number 1."""
    return json.dumps(prompt_id, ensure_ascii=True).encode()

"""The story corpus: documents, and which of them are held out."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"
HELD_OUT_ONE_IN = 50


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the corpus, how many rows of a batch of 32 it fills, and how much of it is read."""

    name: str
    rows: int
    max_bytes: int | None = None


SOURCES = (
    Source("stories-tiny", rows=7),
    Source("stories-simple", rows=20),
    Source("stories-classic", rows=5, max_bytes=12_000_000),  # sorted simplest first; the tail is too hard
)


def documents(folder: Path, source: Source) -> Iterator[str]:
    """The documents of one source, in order, without their end marker."""
    read = 0
    lines: list[str] = []
    with lzma.open(folder / f"{source.name}.txt.xz", "rt", encoding="utf-8") as file:
        for line in file:
            read += len(line)
            if line.strip() != END_OF_TEXT:
                lines.append(line)
                continue
            text = "".join(lines).strip()
            lines.clear()
            if text:
                yield text
            if source.max_bytes is not None and read >= source.max_bytes:
                return


def is_held_out(text: str) -> bool:
    """Whole documents are held out by a hash of their text, whichever source they stand in."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little") % HELD_OUT_ONE_IN == 0


def training_documents(folder: Path, source: Source) -> Iterator[str]:
    return (text for text in documents(folder, source) if not is_held_out(text))


def held_out_documents(folder: Path, source: Source) -> Iterator[str]:
    return (text for text in documents(folder, source) if is_held_out(text))

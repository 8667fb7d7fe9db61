"""The story corpus: documents, and which of them are held out."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenglass.weights.recipe.patterns import held_out_pattern_texts, pattern_texts
from tokenglass.weights.recipe.repeats import repeated_texts

END_OF_TEXT = "<|endoftext|>"
HELD_OUT_ONE_IN = 50


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the corpus, how many rows of a batch of 32 it fills, and how much of it is read."""

    name: str
    rows: int
    max_bytes: int | None = None


SIMPLE = Source("stories-simple", rows=3)
PATTERNS = Source("patterns", rows=8)  # no file: written by weights/recipe/patterns.py, with words of TINY
REPEATS = Source("repeats", rows=3)  # of the documents of stories-simple, by weights/recipe/repeats.py
TINY = (Source("stories-tiny", rows=10), Source("stories-tiny-more", rows=7))
SOURCES = (
    *TINY,
    SIMPLE,
    Source("stories-classic", rows=1, max_bytes=12_000_000),  # sorted simplest first; the tail is too hard
    PATTERNS,
    REPEATS,
)
PATTERN_TEXTS = 20_000
REPEATS_PER_DOCUMENT = 8


def documents(folder: Path, source: Source) -> Iterator[str]:
    """The documents of one file, in order, without their end marker."""
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


def training_documents(folder: Path, source: Source) -> Iterable[str]:
    return texts_of(folder, source, held_out=False)


def held_out_documents(folder: Path, source: Source) -> Iterable[str]:
    return texts_of(folder, source, held_out=True)


def texts_of(folder: Path, source: Source, *, held_out: bool) -> Iterable[str]:
    """Those of a source that are held out, or all others; what a generator writes is held out with what it reads."""
    if source == PATTERNS and held_out:
        return held_out_pattern_texts(PATTERN_TEXTS // HELD_OUT_ONE_IN)
    if source == PATTERNS:
        stories = [text for tiny in TINY for text in texts_of(folder, tiny, held_out=False)]
        return pattern_texts(stories, PATTERN_TEXTS)
    if source == REPEATS:
        read = [text for text in documents(folder, SIMPLE) if is_held_out(text) == held_out]
        return repeated_texts(read * REPEATS_PER_DOCUMENT)
    return (text for text in documents(folder, source) if is_held_out(text) == held_out)

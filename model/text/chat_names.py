"""Names of special tokens in what users and tools say: hidden while a template runs, and encoded as text behind it.

A template may look into messages and cut them up. So a name is not marked but replaced, character by character, by
stand-ins that occur nowhere else: lengths and borders stay as they are, and every part of it that comes out is text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import tokenizers

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import PromptError
from tokenglass.model.text.tokenizer import Tokenizer, tokenizer_errors

STAND_INS = range(0x100000, 0x10FFFE)  # private use, and nobody is known to use it
EDGES = ("\n", "\x02", ".")  # texts that a vocabulary is not likely to merge with what follows
NOT_TEXT = ("role", "type")  # keys whose values a template compares and never takes for text
Fields = Mapping[str, Any]


def hide_names(
    said: Sequence[Fields], tokenizer: Tokenizer, others: Sequence[str]
) -> tuple[list[Fields], dict[str, str]]:
    """The messages with stand-ins for the names of special tokens, and the character that each stand-in is for.

    `others` are the texts that may meet them in a rendering: no stand-in occurs there.
    """
    texts = [text for message in said for text in texts_of(message)]
    places = find_names(texts, tokenizer)
    if not any(places):
        return list(said), {}
    taken = set().union(*texts, *others)
    free = (char for char in map(chr, STAND_INS) if char not in taken)
    chars = {char for text, spans in zip(texts, places, strict=True) for a, b in spans for char in text[a:b]}
    stand_ins = dict(zip(sorted(chars), free, strict=False))
    hidden = iter([replace_spans(text, spans, stand_ins) for text, spans in zip(texts, places, strict=True)])
    return [with_texts(message, hidden) for message in said], {mark: char for char, mark in stand_ins.items()}


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a JSON value, in order, those of NOT_TEXT apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in NOT_TEXT:
                yield from texts_of(item)


def with_texts(value: Any, texts: Iterator[str]) -> Any:
    """The same value with other texts in the places of `texts_of`."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, list):
        return [with_texts(item, texts) for item in value]
    if isinstance(value, Mapping):
        return {key: item if key in NOT_TEXT else with_texts(item, texts) for key, item in value.items()}
    return value


def find_names(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[tuple[int, int]]]:
    """Where names of special tokens stand in each text, also those that several texts make together."""
    names = sorted((token.content for token in tokenizer.special_tokens.values() if token.content), key=len)
    pattern = re.compile("|".join(map(re.escape, reversed(names))) or "(?!)")
    places: list[list[tuple[int, int]]] = [[] for _ in texts]
    for leads, pieces in (
        ([0] * len(texts), list(texts)),
        ([len(text) - len(text.lstrip()) for text in texts], [text.strip() for text in texts]),  # as templates trim
    ):
        joined = "".join(pieces)
        starts = [0, *accumulate(map(len, pieces))]
        spans = [match.span() for match in pattern.finditer(joined)] + tokenizer.normalised_names(joined)
        for start, end in spans:
            for number in range(bisect_right(starts, start) - 1, len(pieces)):
                if starts[number] >= end:
                    break
                a, b = max(start, starts[number]), min(end, starts[number + 1])
                if a < b:
                    shift = leads[number] - starts[number]
                    places[number].append((a + shift, b + shift))
    return places


def replace_spans(text: str, spans: Sequence[tuple[int, int]], stand_ins: Mapping[str, str]) -> str:
    chars = list(text)
    for start, end in spans:
        chars[start:end] = [stand_ins[char] for char in text[start:end]]
    return "".join(chars)


def encode_hidden(text: str, originals: Mapping[str, str], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Token ids of a rendering in which stand-ins are the characters they stand for, and those are text.

    Between two special tokens of the template a text is encoded at once, as by a tokenizer that has no special tokens:
    nothing comes between a name and its neighbours. Raises PromptError where a vocabulary has a piece for a name, which
    is the same token.
    """
    if not originals:
        return tokenizer.encode_bare(text)
    with tokenizer_errors("the tokenizer"):
        encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    marks = re.compile(f"[{''.join(originals)}]")
    controls = [
        (place, *encoding.offsets[place])
        for place, token_id in enumerate(encoding.ids)
        if token_id in tokenizer.special_tokens and not marks.search(text, *encoding.offsets[place])
    ]
    ids: list[int] = []
    for (before, _, start), (place, end, _) in pairwise([(-1, 0, 0), *controls, (len(encoding.ids), len(text), 0)]):
        if before >= 0:
            ids.append(encoding.ids[before])
        if not marks.search(text, start, end):
            ids += encoding.ids[before + 1 : place]
            continue
        plain = marks.sub(lambda match: originals[match[0]], text[start:end])
        ids += encode_as_text(plain, encoding.ids[before] if before >= 0 else None, tokenizer)
    return tuple(ids)


def encode_as_text(text: str, control: int | None, tokenizer: Tokenizer) -> list[int]:
    """Token ids of a text that holds no special tokens, behind a special token or at the beginning (None)."""
    backend = tokenizer.backend
    edge = ""
    if control is not None:
        name, probe = tokenizer.special_tokens[control].content, "a"
        with tokenizer_errors("the tokenizer"):
            behind, alone = (backend.encode(part, add_special_tokens=False).ids for part in (name + probe, probe))
        if behind != [control, *alone]:  # a text at the beginning gets a space that this one has not
            edge = next((edge for edge in EDGES if is_border(edge, probe, backend)), "")
    with tokenizer_errors("the tokenizer"), no_special_tokens(backend):
        before = len(backend.encode(edge, add_special_tokens=False).ids)
        encoding = backend.encode(edge + text, add_special_tokens=False)
    for token_id, (start, end) in zip(encoding.ids[before:], encoding.offsets[before:], strict=True):
        token = tokenizer.special_tokens.get(token_id)
        if token is not None and (edge + text)[start:end].strip() == token.content:
            raise PromptError(
                f"a message holds {quote(token.content)}, which this tokenizer reads as control even where it is "
                "text; leave it out"
            )
    return encoding.ids[before:]


def is_border(edge: str, text: str, backend: tokenizers.Tokenizer) -> bool:
    """Whether a text in front leaves the tokens behind it as they are."""
    known = backend.encode(edge, add_special_tokens=False).ids
    return backend.encode(edge + text, add_special_tokens=False).ids[: len(known)] == known


@contextmanager
def no_special_tokens(backend: tokenizers.Tokenizer) -> Iterator[None]:
    """Names of special tokens are read as any text."""
    backend.encode_special_tokens = True
    try:
        yield
    finally:
        backend.encode_special_tokens = False

"""What an untrusted tokenizer.json may cost, read from it before the library runs it.

A chain of replacements can double a text forty times, a template of ids can repeat them, and a pattern can look for
ever. The parts that real tokenizers are made of are bounded here, so that a text of n characters stays one of a few n;
what is out of bounds is refused, and what these rules cannot judge is tried out in a process with limits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from math import prod
from typing import Any

from tokenglass.model.errors import TokenizerError
from tokenglass.model.text.tokenizer_patterns import NotSure, form_of

MAX_PARTS = 256  # normalisers, pre-tokenizers, decoders and post-processors, each alone
MAX_GROWTH = 64  # times that a text may become longer
MAX_ADDED = 65_536  # characters or ids that come to every text
MAX_WORD = 1000  # characters of a word that WordPiece looks at

STAGES = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
LISTS = ("normalizers", "pretokenizers", "processors", "decoders")  # what a Sequence of each stage calls its parts
USUAL = {
    *("BertNormalizer", "StripAccents", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip", "Nmt"),
    *("ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "Split", "BertPreTokenizer"),
    *("UnicodeScripts", "CharDelimiterSplit", "TemplateProcessing", "BertProcessing", "RobertaProcessing"),
    *("Prepend", "Replace", "ByteFallback", "Fuse", "WordPiece", "BPEDecoder"),
}  # parts that are safe whatever stands in them, or that are judged below
HEAD = re.compile(rb'"model"\s*:\s*\{')
BEHIND = re.compile(rb'"(?:normalizer|pre_tokenizer|post_processor|decoder|added_tokens|model)"\s*:\s*[\[{]')
SPELT = (b"\\u006", b"\\u007", b"\\u005")  # letters written as escapes, in which a key could hide


def is_vouched(content: bytes) -> bool:
    """Whether a tokenizer.json costs little for any text; False: it has to be tried. Raises TokenizerError where it
    costs too much."""
    parsed = read_parts(content)
    if parsed is None:
        return False
    parts = {stage: list(flat(parsed.get(stage))) for stage in STAGES}
    for stage, members in parts.items():
        if len(members) > MAX_PARTS:
            raise TokenizerError(f"its {stage} has {len(members):,} parts, more than {MAX_PARTS}")
    for stage in ("normalizer", "pre_tokenizer", "decoder"):
        check_growth(stage, parts[stage])
    check_templates(parts["post_processor"])
    model = parsed.get("model")
    word = model.get("max_input_chars_per_word", 0) if isinstance(model, dict) else 0
    return isinstance(word, int) and word <= MAX_WORD and all(map(is_usual, chain(*parts.values())))


def read_parts(content: bytes) -> dict[str, Any] | None:
    """A tokenizer.json without its vocabulary, where that stands last; None for what is no such object.

    Raises TokenizerError.
    """
    head = HEAD.search(content)
    try:
        if head is not None and is_last(content, head.end()):
            try:
                return parse(content[: head.start()].rstrip().rstrip(b",") + b"}")
            except ValueError:
                pass  # that was another "model"
        return parse(content)
    except (ValueError, RecursionError):
        return None


def is_last(content: bytes, place: int) -> bool:
    """Whether no other part can stand behind this place: a few searches instead of a parse, which takes a second."""
    if BEHIND.search(content, place) or content.find(b'"max_input_chars_per_word"', place) >= 0:
        return False
    return all(content.find(spelt, place) < 0 for spelt in SPELT)


def parse(content: bytes) -> dict[str, Any]:
    """Raises ValueError, and TokenizerError for a part that has a key twice: who reads it next may take the other."""
    value = json.loads(content, object_pairs_hook=without_doubles)
    if not isinstance(value, dict):
        raise ValueError
    return value


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs) and not value.keys().isdisjoint(("type", "model", "pattern", *STAGES, *LISTS)):
        raise TokenizerError("a key stands twice in one of its parts")
    return value


def flat(part: Any) -> Iterator[Mapping[str, Any]]:
    """The parts of a stage in their order, sequences taken apart; the library asks for no type where the keys tell."""
    if not isinstance(part, dict):
        return
    items = [item for name in LISTS for item in part.get(name) or ()]
    if not items:
        yield part
    for item in items:
        yield from flat(item)


def check_growth(stage: str, parts: list[Mapping[str, Any]]) -> None:
    """Raises TokenizerError where a text becomes much longer."""
    growth = prod(map(growth_of, parts))
    added = sum(len(str(part.get("prepend", part.get("append", "")))) for part in parts)
    if growth > MAX_GROWTH or added * growth > MAX_ADDED:
        raise TokenizerError(f"its {stage} makes a text more than {MAX_GROWTH} times as long")


def growth_of(part: Mapping[str, Any]) -> float:
    """How much longer a text may become. What Unicode's own forms do is bounded, and done once."""
    if part.get("type") == "ByteLevel":
        return 2.0
    if "pattern" not in part or "content" not in part:
        return 1.0
    length = len(str(part["content"]))
    pattern, is_regex = pattern_of(part)
    if not is_regex and pattern:
        return max(1.0, length / len(pattern))
    try:
        may_be_empty = not pattern or form_of(pattern).may_be_empty
    except NotSure:
        may_be_empty = True
    return max(1.0, float(length + may_be_empty))


def pattern_of(part: Mapping[str, Any]) -> tuple[str, bool]:
    """The pattern of a part, and whether it is a regular expression."""
    pattern = part.get("pattern")
    if isinstance(pattern, dict):
        regex, text = pattern.get("Regex"), pattern.get("String")
        return (regex, True) if isinstance(regex, str) else (text if isinstance(text, str) else "", False)
    return pattern if isinstance(pattern, str) else "", False


def check_templates(parts: list[Mapping[str, Any]]) -> None:
    """Raises TokenizerError where a post-processor adds many ids, or repeats the text."""
    added, growth = 0, 1
    for part in parts:
        sizes = sizes_of(part)
        added += sum(sizes.get(name, 0) for name in named_in(part))
        single = part.get("single")
        growth *= max(1, str(single).count("'Sequence'") if isinstance(single, list) else 1)
        if added > MAX_ADDED or growth > MAX_GROWTH:
            raise TokenizerError(f"its post_processor adds more than {MAX_ADDED:,} ids to a text")


def sizes_of(part: Mapping[str, Any]) -> dict[str, int]:
    """How many ids stand for each name in a template."""
    specials = part.get("special_tokens")
    items = specials.items() if isinstance(specials, dict) else ()
    return {name: len(value.get("ids") or ()) for name, value in items if isinstance(value, dict)}


def named_in(part: Mapping[str, Any]) -> list[str]:
    """The names that a template writes, those for two texts included."""
    items = [*(part.get("single") or ()), *(part.get("pair") or ())]
    specials = [item.get("SpecialToken") for item in items if isinstance(item, dict)]
    return [str(special.get("id")) for special in specials if isinstance(special, dict)]


def is_usual(part: Mapping[str, Any]) -> bool:
    """Whether a part is one that no text makes slow or breaks."""
    kind = part.get("type")
    if kind == "TemplateProcessing":
        return set(named_in(part)) <= set(sizes_of(part))
    if kind in ("Split", "Replace"):
        return is_quick(*pattern_of(part))
    if kind == "Strip" and "content" in part:  # a decoder: what is cut on both sides can be cut twice
        return part.get("stop") == 0
    return isinstance(kind, str) and kind in USUAL


def is_quick(pattern: str, is_regex: bool) -> bool:
    try:
        return bool(pattern) and (not is_regex or not form_of(pattern).may_be_empty)
    except NotSure:
        return False

"""What the small files beside tokenizer.json say: named special tokens, tokens to be added, chat templates.

Read as transformers reads them (tokenization_utils_base.py, `_from_pretrained`; tokenization_utils_tokenizers.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import TokenizerError
from tokenglass.model.files import MAX_TOKENIZER_CONFIG, read_json
from tokenglass.model.text.tokenizer_classes import NAMES, class_of

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that is added to the vocabulary; without flags it is a special one."""

    content: str
    flags: Mapping[str, bool] | None = None

    def as_special(self) -> NewToken:
        return self if self.flags is None else NewToken(self.content, {**self.flags, "special": True})


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """tokenizer_config.json, and the files that older checkpoints have instead of parts of it."""

    named: Mapping[str, str]  # the special tokens that a template may name, bos_token and so on
    added: tuple[NewToken, ...]  # in the order in which they are added
    chat_template: Any = None
    tokenizer_class: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # all keys

    @staticmethod
    def from_folder(folder: Path) -> TokenizerConfig:
        """Raises TokenizerError, ConfigError."""
        source = folder / "tokenizer_config.json"
        raw = _read(source)
        name = class_of(raw, _read_model_type(folder / "config.json"))
        decoder = raw.get("added_tokens_decoder")
        listed: list[NewToken] = []
        if decoder is not None:
            listed = _numbered_tokens(decoder, source)
        else:
            raw |= {key: value for key, value in _read(folder / "special_tokens_map.json").items() if value}
        raw = {**NAMES.get(name or "", {}), **raw}
        named, extra = _special(raw, source)
        if decoder is None:
            specials = {token.content for token in (*named.values(), *extra)}
            listed = _older(_read(folder / "added_tokens.json"), specials, folder / "added_tokens.json")
        flags = {token.content: token for token in listed}
        named = {key: flags.get(token.content, token) for key, token in named.items()}
        names = {key: token.content for key, token in named.items()}
        return TokenizerConfig(names, _once(listed, named.values(), extra), raw.get("chat_template"), name, raw)


def _read_model_type(path: Path) -> object:
    return read_json(path).get("model_type") if path.exists() else None


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, MAX_TOKENIZER_CONFIG) if path.exists() else {}


def _special(raw: Mapping[str, Any], source: Path) -> tuple[dict[str, NewToken], list[NewToken]]:
    """The named special tokens, the model's own ones included, and the rest."""
    extra = raw.get("extra_special_tokens") or raw.get("additional_special_tokens") or []
    values: dict[str, Any] = {key: raw[key] for key in NAMED if key in raw}
    specific = raw.get("model_specific_special_tokens")
    values |= specific if isinstance(specific, dict) else {}
    values |= {key: value for key, value in raw.items() if _is_own_name(key, value)}
    if isinstance(extra, dict):
        values |= extra
        extra = []
    if not isinstance(extra, list):
        raise TokenizerError(f"{source}: extra_special_tokens is {quote(extra)}; expected a list of tokens")
    named = {key: _token(value, key, source) for key, value in values.items() if isinstance(value, str | dict)}
    return named, [_token(value, "extra_special_tokens", source) for value in extra]


def _is_own_name(key: str, value: Any) -> bool:
    """Whether a model has given a token a name of its own, such as image_token."""
    return key.endswith("_token") and key not in NAMED and (isinstance(value, str) or _is_token(value))


def _numbered_tokens(decoder: Any, source: Path) -> list[NewToken]:
    """added_tokens_decoder, in the order of its ids, which the vocabulary decides anew."""
    try:
        items = sorted((int(token_id), value) for token_id, value in decoder.items())
    except (AttributeError, ValueError):
        raise TokenizerError(f"{source}: added_tokens_decoder is not a mapping of ids to tokens") from None
    except TypeError:  # one id twice, such as "1" and "01"
        raise TokenizerError(f"{source}: added_tokens_decoder has two tokens of one id") from None
    return [_token(value if isinstance(value, dict) else None, "added_tokens_decoder", source) for _, value in items]


def _older(content: Mapping[str, Any], specials: set[str], source: Path) -> list[NewToken]:
    """added_tokens.json: names and ids."""
    for name, token_id in content.items():
        if isinstance(token_id, bool) or not isinstance(token_id, int):
            raise TokenizerError(f"{source}: {quote(name)} has no token id")
    ordered = sorted(content, key=lambda name: content[name])
    return [_token({"content": name, "special": name in specials}, "a token", source) for name in ordered]


def _is_token(value: Any) -> bool:
    return isinstance(value, dict) and (value.get("__type") == "AddedToken" or isinstance(value.get("content"), str))


def _token(value: Any, name: str, source: Path) -> NewToken:
    """A token as a file writes it: a text, or an object with its flags. Raises TokenizerError."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise TokenizerError(f"{source}: {quote(name)} is {quote(value)}; expected a token")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError:
        raise TokenizerError(f"{source}: {quote(name)} holds half a surrogate pair, which is no text") from None
    if not isinstance(value, dict):
        return NewToken(content)
    flags = {flag: value.get(flag, False) for flag in FLAGS}
    flags["normalized"] = value.get("normalized", not flags["special"])
    for flag, is_set in flags.items():
        if not isinstance(is_set, bool):
            raise TokenizerError(f"{source}: {flag} of {quote(content)} is neither true nor false")
    return NewToken(content, flags)


def _once(listed: Iterable[NewToken], named: Iterable[NewToken], extra: Iterable[NewToken]) -> tuple[NewToken, ...]:
    """All of them, each content once; a token with a name is special, whatever its flags say."""
    names = {token.content for token in named}
    tokens: dict[str, NewToken] = {}
    for token in (*listed, *named, *extra):
        tokens.setdefault(token.content, token.as_special() if token.content in names else token)
    return tuple(tokens.values())

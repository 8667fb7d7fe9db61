"""The tokenizer inside a GGUF file, rebuilt as tokenizer.json and tokenizer_config.json.

It cuts text as llama.cpp does with the same file (github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp), and
not always as the model's original tokenizer: a file holds no normalizer, so none is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import GGUFError
from tokenglass.model.importers.gguf_words import KINDS, WORDS
from tokenglass.model.text.tokenizer import byte_alphabet, tokenizer_errors
from tokenglass.model.text.tokenizer_classes import KEEPS_STEPS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
MAX_TOKENS = 2**19  # the largest vocabularies have half of it
MAX_SPLITS = 2**26  # characters looked at to derive merges; Gemma's vocabulary needs about 2**24
# what ends a turn or a text, by the names in use; a file often names only one of them
ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the file lists per token id."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]

    @staticmethod
    def of(metadata: Mapping[str, Any]) -> Vocabulary:
        """Raises GGUFError."""
        tokens = read_list(metadata, "tokens", str)
        if not tokens:
            raise GGUFError("tokenizer.ggml.tokens is missing; the file holds no tokenizer")
        if len(tokens) > MAX_TOKENS:
            raise GGUFError(f"{len(tokens):,} tokens are more than the {MAX_TOKENS:,} that this program reads")
        types = read_list(metadata, "token_type", int) or (NORMAL,) * len(tokens)
        scores = read_list(metadata, "scores", float) or (0.0,) * len(tokens)
        if not len(tokens) == len(types) == len(scores):
            raise GGUFError(f"{len(tokens):,} tokens, {len(types):,} types and {len(scores):,} scores do not match")
        return Vocabulary(tokens, types, scores, read_list(metadata, "merges", str))

    @property
    def ids(self) -> dict[str, int]:
        return {token: token_id for token_id, token in enumerate(self.tokens)}

    def of_type(self, *types: int) -> list[str]:
        return [token for token, kind in zip(self.tokens, self.types, strict=True) if kind in types]

    def special_id(self, metadata: Mapping[str, Any], role: str, default: int | None = None) -> str | None:
        """The token that the file names for a role, such as bos. Raises GGUFError."""
        token_id = metadata.get(f"tokenizer.ggml.{role}_token_id", default)
        if token_id is None:
            return None
        if type(token_id) is not int or not 0 <= token_id < len(self.tokens):
            raise GGUFError(f"tokenizer.ggml.{role}_token_id is {quote(token_id)} of {len(self.tokens):,} tokens")
        return self.tokens[token_id]


def tokenizer_of(metadata: Mapping[str, Any]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The tokenizer, and tokenizer_config.json with the chat template. Raises GGUFError, TokenizerError."""
    vocabulary = Vocabulary.of(metadata)
    kind = metadata.get("tokenizer.ggml.model")
    with tokenizer_errors("the tokenizer in the file"):
        if kind == "gpt2":
            tokenizer, adds_start = byte_level(vocabulary, metadata.get("tokenizer.ggml.pre") or "default")
            defaults: dict[str, int] = {}
        elif kind == "llama":
            space = metadata.get("tokenizer.ggml.add_space_prefix", True) is True
            tokenizer, adds_start = sentencepiece(vocabulary, merges_by_score(vocabulary), space), True
            defaults = {"unknown": 0, "bos": 1, "eos": 2}
        elif kind == "gemma4":
            tokenizer, adds_start, defaults = sentencepiece_lines(vocabulary), True, {}
        else:
            raise GGUFError(f"tokenizer.ggml.model {quote(kind)} is not supported (supported: gpt2, llama, gemma4)")
        roles = {
            short: vocabulary.special_id(metadata, role, defaults.get(role))
            for short, role in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items()
        }
        specials = vocabulary.of_type(CONTROL, UNKNOWN)
        tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
        own = vocabulary.of_type(USER_DEFINED)
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in own])
        says_start = kind == "gemma4" or metadata.get("tokenizer.ggml.add_bos_token", adds_start) is True
        starts = says_start and roles["bos"]
        ends = metadata.get("tokenizer.ggml.add_eos_token", False) is True and roles["eos"]
        around = [*([starts] if starts else []), "$A", *([ends] if ends else [])]
        if len(around) > 1:
            ids = vocabulary.ids
            tokenizer.post_processor = processors.TemplateProcessing(
                single=around, special_tokens=[(token, ids[token]) for token in (starts, ends) if token]
            )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        KEEPS_STEPS: True,
        **{f"{role}_token": token for role, token in roles.items() if token is not None},
        "clean_up_tokenization_spaces": False,
    }
    template = metadata.get("tokenizer.chat_template")
    return tokenizer, config if not isinstance(template, str) else {**config, "chat_template": template}


def end_ids(metadata: Mapping[str, Any]) -> list[int]:
    """Ids that end a text or a turn: those the file names, and special tokens of a name that is known to."""
    vocabulary = Vocabulary.of(metadata)
    named = [vocabulary.special_id(metadata, role) for role in ("eos", "eot", "eom")]
    ids, special = vocabulary.ids, set(vocabulary.of_type(CONTROL))
    ends = [*(token for token in named if token is not None), *(token for token in ENDS if token in special)]
    return [ids[token] for token in dict.fromkeys(ends)]


def byte_level(vocabulary: Vocabulary, pre: object) -> tuple[tokenizers.Tokenizer, bool]:
    """Byte-level BPE, and whether it puts the start token first unless told otherwise. Raises GGUFError."""
    if not isinstance(pre, str) or pre not in WORDS:
        raise GGUFError(
            f"tokenizer.ggml.pre {quote(pre)} is not supported (supported: {', '.join(KINDS)} and their other names)"
        )
    words = WORDS[pre]
    ids = vocabulary.ids
    merges = [split_merge(merge) for merge in vocabulary.merges]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=merges, ignore_merges=words.whole_words_first))
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in words.patterns
    ]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    absent = "".join(f"\\x{{{ord(char):X}}}" for char in byte_alphabet() if char not in ids)
    if absent:  # bytes without a token are left out, and what is around them is not merged
        steps.append(pre_tokenizers.Split(Regex(f"[{absent}]"), "removed"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, words.adds_start


def sentencepiece(vocabulary: Vocabulary, merges: list[tuple[str, str]], space_prefix: bool) -> tokenizers.Tokenizer:
    """SentencePiece's BPE: a token per byte for characters without one."""
    unknown = vocabulary.of_type(UNKNOWN)
    model = models.BPE(
        vocab=vocabulary.ids,
        merges=merges,
        unk_token=unknown[0] if unknown else None,
        fuse_unk=True,
        byte_fallback=bool(vocabulary.of_type(BYTE)),
    )
    tokenizer = tokenizers.Tokenizer(model)
    prefix = [normalizers.Prepend("▁")] if space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if space_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def sentencepiece_lines(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """The same as gemma4 has it: the file lists the merges, and line ends are cut off first."""
    merges = [split_merge(merge) for merge in vocabulary.merges]
    tokenizer = sentencepiece(vocabulary, merges, space_prefix=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), "isolated")
    return tokenizer


def merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every way to make a token of two others, best score first (Kudo and Richardson 2018, arXiv 1808.06226)."""
    if sum(len(token) ** 2 for token in vocabulary.tokens) > MAX_SPLITS:
        raise GGUFError("the tokens are too long to derive their merges")
    rows = zip(vocabulary.tokens, vocabulary.types, vocabulary.scores, strict=True)
    whole = [(token, score) for token, kind, score in rows if kind in (NORMAL, USER_DEFINED)]
    parts = {token for token, _ in whole}
    splits = [
        (score, token[:cut], token[cut:])
        for token, score in whole
        for cut in range(1, len(token))
        if token[:cut] in parts and token[cut:] in parts
    ]
    return [(left, right) for _, left, right in sorted(splits, key=lambda split: -split[0])]


def split_merge(merge: str) -> tuple[str, str]:
    """The two parts of a merge as a file writes it: joined by a space, which may not come first."""
    cut = merge.find(" ", 1)
    if cut < 0:
        raise GGUFError(f"the merge {quote(merge)} has no two parts")
    return merge[:cut], merge[cut + 1 :]


def read_list(metadata: Mapping[str, Any], name: str, kind: type) -> tuple[Any, ...]:
    """A list of the tokenizer's, () where there is none. Raises GGUFError for values of another type."""
    values = metadata.get(f"tokenizer.ggml.{name}", ())
    if not isinstance(values, tuple) or not all(type(value) is kind for value in values):
        raise GGUFError(f"tokenizer.ggml.{name} is not a list of {kind.__name__}")
    return values

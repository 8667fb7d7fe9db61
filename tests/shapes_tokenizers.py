"""Tokenizers of the kinds that popular checkpoints have, their vocabularies trained small."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tiny
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
NEMO_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


TEXTS = [
    *tiny.TEXTS,
    "In 2024 and 2025 there were 1234 foxes, 12345 bears; I'm sure they'll say it's fine. I'LL SAY IT'S 100% fine!",
    "def f(x):\n    if x:\n        return x + 1\n\n\ndef g(y):\n\treturn f(y)  # the   end\r\n",
]


def learn_tokens(
    trained: tokenizers.Tokenizer, texts: Sequence[str], **options: Any
) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges of a small BPE, made with a tokenizer's own way of splitting."""
    trained.train_from_iterator(texts, trainers.BpeTrainer(show_progress=False, **options))
    model = json.loads(trained.to_str())["model"]
    return list(model["vocab"]), [(first, second) for first, second in model["merges"]]


def byte_level(
    start: str | None = None,
    split: str | None = None,
    *,
    nfc: bool = False,
    ignore_merges: bool = False,
    digits: bool = False,
    prefix: bool = False,
    starts: Sequence[str] = (),
) -> tokenizers.Tokenizer:
    """GPT-2's kind; later ones split by a pattern of their own. `starts` are tokens before the learned ones."""
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if split is not None:
        steps += [pre_tokenizers.Split(Regex(split), behavior="isolated", invert=False)]
    steps += [pre_tokenizers.ByteLevel(add_prefix_space=prefix, trim_offsets=True, use_regex=split is None)]
    splitter = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = splitter
    tokens, merges = learn_tokens(trained, TEXTS, vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: token_id for token_id, token in enumerate(dict.fromkeys([*starts, *tokens]))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = splitter
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if start is not None:
        tokenizer.add_special_tokens([start])
        template = with_start(tokenizer, start)
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def with_start(tokenizer: tokenizers.Tokenizer, start: str) -> Any:
    ids = [(start, tokenizer.token_to_id(start))]
    return processors.TemplateProcessing(single=f"{start} $A", pair=f"{start} $A {start}:1 $B:1", special_tokens=ids)


def sentencepiece(kind: str = "llama", starts: Sequence[str] = ("<unk>", "<s>", "</s>")) -> tokenizers.Tokenizer:
    """SentencePiece as Llama 2 ("llama"), newer files of its kind ("metaspace") and Gemma ("gemma") have it."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("▁*[^▁]+"), behavior="isolated")
    tokens, merges = learn_tokens(trained, TEXTS[:2] + TEXTS[3:], vocab_size=200, max_token_length=12)
    names = [*starts, *(f"<0x{byte:02X}>" for byte in range(256)), *tokens]
    vocab = {token: token_id for token_id, token in enumerate(dict.fromkeys(names))}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    space = decoders.Replace("▁", " ")
    ends = [decoders.ByteFallback(), decoders.Fuse()]
    if kind == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([space, *ends, *([] if kind == "gemma" else [decoders.Strip(" ", 1, 0)])])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in starts])
    tokenizer.post_processor = with_start(tokenizer, "<bos>" if kind == "gemma" else "<s>")
    return tokenizer

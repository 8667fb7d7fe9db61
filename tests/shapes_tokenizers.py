"""Tokenizers of the kinds that popular checkpoints have, their vocabularies trained small."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import tiny
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
NEMO_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@functools.cache
def learned(spaces: str, count: int) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Tokens and merges of a small BPE: over bytes ("Ġ"), or over characters with their spaces as "▁"."""
    trained = tokenizers.Tokenizer(models.BPE())
    over_bytes = spaces == "Ġ"
    trained.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False) if over_bytes else pre_tokenizers.Metaspace()
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet() if over_bytes else []
    trainer = trainers.BpeTrainer(vocab_size=count, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(tiny.TEXTS if over_bytes else tiny.TEXTS[:2], trainer)
    model = json.loads(trained.to_str())["model"]
    return tuple(model["vocab"]), tuple((first, second) for first, second in model["merges"])


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
    tokens, merges = learned("Ġ", 330)
    vocab = {token: token_id for token_id, token in enumerate(dict.fromkeys([*starts, *tokens]))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=list(merges), ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if split is not None:
        steps += [pre_tokenizers.Split(Regex(split), behavior="isolated", invert=False)]
    steps += [pre_tokenizers.ByteLevel(add_prefix_space=prefix, trim_offsets=True, use_regex=split is None)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
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
    tokens, merges = learned("▁", 120)
    names = [*starts, *(f"<0x{byte:02X}>" for byte in range(256)), *tokens, "▁▁", "▁▁▁▁", "\n"]
    vocab = {token: token_id for token_id, token in enumerate(dict.fromkeys(names))}
    more = [("▁", "▁"), ("▁▁", "▁▁")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=[*merges, *more], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
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

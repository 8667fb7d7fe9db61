"""What transformers' tokenizer classes put in the place of a tokenizer.json's steps.

Some classes take only vocabulary, merges and post-processor from the file and build the rest themselves, so that a text
has the ids of the class, whatever the file says. Which class that is depends on the family too
(transformers 5, models/auto/tokenization_auto.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

KEEPS_STEPS = "keeps_steps"  # set by our importers: the steps are the source's, whose ids are to be kept
FROM_THE_FILE = (  # whatever class they name
    *("ernie4_5", "glm4", "granite", "ministral3", "mistral", "olmo2", "olmo3", "phi3", "stablelm"),
    *("llava", "llava_next", "mistral3", "smolvlm"),
)
ALWAYS_THEIR_OWN = ("qwen2",)
OWN = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("gpt2", "phi", "starcoder2"), "GPT2Tokenizer"),
    "cohere2": "CohereTokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    **dict.fromkeys(("internvl", "qwen2", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_vl"), "Qwen2Tokenizer"),
}
END = "<|endoftext|>"
BYTES = {"bos_token": END, "eos_token": END, "unk_token": END}
NAMES: dict[str, dict[str, str]] = {  # of special tokens, where tokenizer_config.json leaves them out
    "GPT2Tokenizer": BYTES,
    "CodeGenTokenizer": BYTES,
    "GPTNeoXTokenizer": {**BYTES, "pad_token": "<|padding|>"},
    "CohereTokenizer": {
        "bos_token": "<BOS_TOKEN>",
        "eos_token": "<|END_OF_TURN_TOKEN|>",
        "unk_token": "<UNK>",
        "pad_token": "<PAD>",
        "cls_token": "<CLS>",
        "sep_token": "<SEP>",
        "mask_token": "<MASK_TOKEN>",
    },
    "Qwen2Tokenizer": {"eos_token": END, "unk_token": END, "pad_token": END},
    "GemmaTokenizer": {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
}
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def conform(backend: tokenizers.Tokenizer, name: str | None, settings: Mapping[str, Any]) -> None:
    """Change the steps of a tokenizer to those of the class of this name, as tokenizer_config.json sets it."""
    if not isinstance(backend.model, BPE):
        return
    prefix = settings.get("add_prefix_space")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=prefix is True)
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    match name:
        case "LlamaTokenizer" if not is_over_bytes(backend):
            scheme: Literal["always", "first", "never"] = "always" if settings.get("legacy") else "first"
            scheme = "never" if prefix is False else scheme
            backend.normalizer = None
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
            strip = [] if prefix is False else [decoders.Strip(content=" ", left=1)]
            backend.decoder = decoders.Sequence([*spaces, *strip])
        case "GemmaTokenizer":
            backend.normalizer = normalizers.Replace(" ", "▁")
            backend.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
            backend.decoder = decoders.Sequence(spaces)
        case "GPT2Tokenizer" | "CodeGenTokenizer":
            backend.normalizer, backend.pre_tokenizer, backend.decoder = None, plain, decoders.ByteLevel()
        case "CohereTokenizer":
            digits = pre_tokenizers.Digits(individual_digits=True)
            backend.normalizer, backend.decoder = normalizers.NFC(), decoders.ByteLevel()
            backend.pre_tokenizer = pre_tokenizers.Sequence([digits, plain])
        case "GPTNeoXTokenizer":
            backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizers.NFC(), plain, decoders.ByteLevel()
        case "Qwen2Tokenizer" if is_over_bytes(backend):
            split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
            to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=prefix is True, use_regex=False)
            backend.normalizer = normalizers.NFC()
            backend.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
            backend.decoder = decoders.ByteLevel()


def class_of(settings: Mapping[str, Any], model_type: object) -> str | None:
    """The class that transformers takes, without Fast; None for the one that takes all from the file."""
    named = settings.get("tokenizer_class")
    if model_type in FROM_THE_FILE or not isinstance(model_type, str) or settings.get(KEEPS_STEPS) is True:
        return None
    if model_type in ALWAYS_THEIR_OWN or not isinstance(named, str):
        return OWN.get(model_type)
    return named.removesuffix("Fast")


def is_over_bytes(backend: tokenizers.Tokenizer) -> bool:
    """Whether its pieces are bytes, as GPT-2's are."""
    return any(b'"ByteLevel"' in part.__getstate__() for part in (backend.pre_tokenizer, backend.decoder) if part)

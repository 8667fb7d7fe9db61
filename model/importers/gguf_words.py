"""How byte-level tokenizers cut text into words before any merge, by the names that GGUF files have for it.

The cuts are llama.cpp's (github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp), which differ here and there
from those of the models' own tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """How text is cut before any merge: patterns, each applied to the pieces of the one before."""

    patterns: tuple[str, ...]
    whole_words_first: bool = False  # a piece that is a token is taken as it is
    adds_start: bool = False  # unless the file says otherwise


SUFFIXES = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"  # of English words
SPACES = r"\s+(?!\S)|\s+"
GPT2_WORDS = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{SPACES}"
UPPER, LOWER = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"  # letters beyond ASCII count as both
CASED = rf"[^\r\n\p{{L}}\p{{N}}]?(?:{UPPER}*{LOWER}+|{UPPER}+{LOWER}*)"
MARKS = rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{SPACES}"
IDEOGRAPHS = "[一-龥぀-ゟ゠-ヿ]+"
SENTENCES = r" ?[^(\s|.,!?…。，、।۔،)]+"


def newer(
    digits: str,
    *,
    letters: str = r"\p{L}",
    suffixes: str = f"{SUFFIXES}|",
    after: str = r"[\r\n]*",
    lines: str = r"\s*[\r\n]+",
) -> str:
    """What Llama 3 and Qwen have made common: a mark before letters, digits in groups, marks with their line ends."""
    word = rf"{suffixes}[^\r\n\p{{L}}\p{{N}}]?[{letters}]+|\p{{N}}{digits}"
    return rf"{word}| ?[^\s{letters}\p{{N}}]+{after}|{lines}|{SPACES}"


DEEPSEEK3_WORDS = (
    r"[!\x22#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|\s*[\r\n]+|{SPACES}"
)
KINDS: Mapping[str, Words] = {
    "default": Words((r"[\p{P}\$\+<=>\^~\|]+", GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]")),
    "gpt-2": Words((GPT2_WORDS,)),
    "smollm": Words((r"\p{N}", GPT2_WORDS)),
    "llama-bpe": Words((newer("{1,3}"),), whole_words_first=True, adds_start=True),
    "smaug-bpe": Words((newer("{1,3}"),)),
    "qwen2": Words((newer(""),)),
    "qwen35": Words((newer("", letters=r"\p{L}\p{M}"),)),
    "seed-coder": Words((newer("", after=""),)),
    "bailingmoe": Words((newer("", lines=r"\s*[\r\n]"),)),
    "minicpm5": Words((r"\p{N}{1,3}", newer("+")), whole_words_first=True),
    "ufakzeka": Words((newer("", suffixes=""),)),
    "gpt-4o": Words((rf"{CASED}(?:{SUFFIXES})?|\p{{N}}{{1,3}}{MARKS}",)),
    "tekken": Words((rf"{CASED}|\p{{N}}{MARKS}",), whole_words_first=True, adds_start=True),
    "deepseek-coder": Words((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    "deepseek-v3": Words((r"\p{N}{1,3}", IDEOGRAPHS, DEEPSEEK3_WORDS)),
    "falcon": Words((r"[\p{P}\$\+<=>\^~\|`]+", GPT2_WORDS, "[0-9][0-9][0-9]")),
    "bloom": Words((SENTENCES,)),
    "viking": Words((SENTENCES, r"\p{N}")),
    "superbpe": Words((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
}
# other names that llama.cpp reads as one of these
ALIASES: Mapping[str, tuple[str, ...]] = {
    "gpt-2": (
        *("phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0", "mellum", "mellum2"),
        *("modern-bert", "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling"),
    ),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
    "smaug-bpe": ("dbrx", "chatglm-bpe", "glm4"),
    "qwen2": ("deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open", "f2llmv2", "grok-2"),
    "gpt-4o": ("llama4", "kanana2", "talkie", "minimax-m2"),
    "deepseek-v3": ("hunyuan-dense", "joyai-llm"),
    "bloom": ("poro-chat", "gpt3-finnish"),
    "bailingmoe": ("bailingmoe2", "llada-moe"),
}
WORDS = {**KINDS, **{alias: KINDS[name] for name, aliases in ALIASES.items() for alias in aliases}}

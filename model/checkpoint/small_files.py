"""The files of a model beside its weights, by their names: configuration, tokenizer, templates, card and licence."""

from __future__ import annotations

import re

from tokenglass.model.checkpoint.shards import INDEX

FURTHER_TEMPLATE = re.compile(r"additional_chat_templates/[\w.-]+\.jinja")  # as transformers lays them out
CONFIGURATION = frozenset(
    {
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"),
        *("special_tokens_map.json", "chat_template.json", "chat_template.jinja", "hf_quant_config.json"),
    }
)
SOURCES = frozenset({"tokenizer.model", "vocab.json", "merges.txt", "vocab.txt"})  # what other programs read
PAPERS = frozenset({"README.md", "NOTICE", "LICENSE", "LICENSE.md", "LICENSE.txt"})


def is_read(name: str) -> bool:
    """Whether a file, named as seen from the folder, is one that loading reads, the weights apart."""
    return name in CONFIGURATION or name == INDEX or FURTHER_TEMPLATE.fullmatch(name) is not None


def belongs_to_model(name: str) -> bool:
    """Whether a file goes with the model when its weights are written anew."""
    return name != INDEX and (is_read(name) or name in SOURCES | PAPERS)

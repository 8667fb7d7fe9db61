"""The steps of a tokenizer are those of the class it names where transformers builds them itself, else the file's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shapes_tokenizers import byte_level, sentencepiece
from transformers import AutoTokenizer

from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.text.tokenizer_classes import KEEPS_STEPS

TEXTS = ["  two", "in  2024", "e\u0301", "a b", "x</s> y", "\n z"]


def save(folder: Path, kind: str, model_type: str, **settings: Any) -> Path:
    built = sentencepiece() if kind == "pieces" else byte_level(digits=True)
    built.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gpt2", "gpt_neox", "phi3"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("bytes", name) for name in ("GPT2Tokenizer", "Qwen2TokenizerFast", "GPTNeoXTokenizerFast", None)),
        *(("bytes", name) for name in ("PreTrainedTokenizerFast", "CodeGenTokenizer")),
        *(("pieces", name) for name in ("LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast")),
    ],
)
@pytest.mark.parametrize("more", [{}, {"legacy": True}, {"add_prefix_space": False}], ids=str)
def test_ids_are_those_of_transformers(
    kind: str, name: str | None, model_type: str, more: dict[str, Any], tmp_path: Path
) -> None:
    if (kind, name, model_type) == ("bytes", None, "gemma2") or (kind, model_type) == ("pieces", "qwen2"):
        pytest.skip("no vocabulary of that class: transformers fails, or loses what it has no piece for")
    settings = {**more, **({} if name is None else {"tokenizer_class": name})}
    if kind == "pieces":
        settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    folder = save(tmp_path, kind, model_type, **settings)
    ours, theirs = Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert list(ours.encode_bare(text)) == theirs(text, add_special_tokens=False)["input_ids"], text


def test_an_imported_tokenizer_keeps_its_source_s_steps(tmp_path: Path) -> None:
    named = {"tokenizer_class": "PreTrainedTokenizerFast"}
    source = byte_level(digits=True)
    tokenizer = Tokenizer.from_folder(save(tmp_path, "bytes", "qwen2", **named, **{KEEPS_STEPS: True}))
    assert [list(tokenizer.encode_bare(text)) for text in TEXTS] == [source.encode(text).ids for text in TEXTS]


def test_a_token_with_a_name_is_special_whatever_tokenizer_json_says(tmp_path: Path) -> None:
    """A user who writes it writes text, and it is left out of what the model says, as in transformers."""
    folder = save(tmp_path, "bytes", "llama", tokenizer_class="PreTrainedTokenizerFast", eos_token="<|EOT|>")
    content = json.loads((folder / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"] = [{"id": len(content["model"]["vocab"]), "content": "<|EOT|>", **flags}]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    ours, theirs = Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    ids = ours.encode_bare("a<|EOT|>b")
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == "ab"

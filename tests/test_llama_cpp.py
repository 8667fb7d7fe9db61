"""Text is cut as llama.cpp cuts it with the same file. Needs the package xllamacpp, which carries llama.cpp built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny_gguf import byte_level_metadata, sentencepiece_metadata, write_gguf
from unicode_lines import unicode_lines

from model.importers.gguf_file import GGUFFile
from model.importers.gguf_tokenizer import WORDS, tokenizer_of
from model.tokenizer import Tokenizer

pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: pip install xllamacpp")
sys.path.insert(0, str(Path(__file__).parent / "peers"))

from llama_cpp import LlamaCpp

pytestmark = pytest.mark.slow


def assert_cut_alike(path: Path, count: int) -> None:
    """The same ids from both, for this many lines, with and without the start token."""
    ours, theirs = Tokenizer(tokenizer_of(GGUFFile.open(path).metadata)[0]), LlamaCpp(path)
    for line in unicode_lines(count):
        assert ours.encode(line)[len(ours.start_ids) :] == theirs.tokenize(line), line
    assert ours.encode("The fox") == theirs.tokenize("The fox", start=True)


@pytest.mark.parametrize("pre", sorted(WORDS))
def test_byte_level(pre: str, tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", byte_level_metadata(pre, bos_token_id=0, eos_token_id=0))
    assert_cut_alike(tmp_path / "a.gguf", 200)


@pytest.mark.parametrize("space_prefix", [True, False])
def test_sentencepiece(space_prefix: bool, tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", sentencepiece_metadata(add_space_prefix=space_prefix))
    assert_cut_alike(tmp_path / "a.gguf", 200)


def write(path: Path, tokenizer: dict[str, Any]) -> None:
    size = len(tokenizer["tokenizer.ggml.tokens"])
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": size}
    write_gguf(path, tiny.save_llama(path.parent / "original", **sizes), tokenizer=tokenizer)

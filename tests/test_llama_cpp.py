"""Text is cut as llama.cpp cuts it with the same file. Needs the package xllamacpp, which carries llama.cpp built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny
import torch
from tiny_gguf import byte_level_metadata, sentencepiece_metadata, write_gguf
from unicode_lines import unicode_lines

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.importers.gguf_file import GGUFFile
from tokenglass.model.importers.gguf_tokenizer import KINDS, WORDS, tokenizer_of
from tokenglass.model.loading import load_model
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer

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
    """For the names of the kinds, and for each that is read as another name of one."""
    write(tmp_path / "a.gguf", byte_level_metadata(pre, bos_token_id=0, eos_token_id=0))
    assert_cut_alike(tmp_path / "a.gguf", 200 if pre in KINDS else 40)


def test_greedy_text_of_a_llama_with_biases(tmp_path: Path) -> None:
    """Biases of queries and keys are interleaved in the file, as the rows of their weights are."""
    metadata = byte_level_metadata(bos_token_id=0, eos_token_id=0)
    size = len(metadata["tokenizer.ggml.tokens"])
    original = tiny.save_llama(
        tmp_path / "original", hidden_size=64, intermediate_size=96, vocab_size=size, attention_bias=True
    )
    weights = safetensors.torch.load_file(original / "model.safetensors")
    biases = {name: torch.randn_like(weight) for name, weight in weights.items() if name.endswith(".bias")}
    assert len(biases) == 8
    safetensors.torch.save_file({**weights, **biases}, original / "model.safetensors")
    path = write_gguf(tmp_path / "a.gguf", original, tokenizer=metadata)
    for _ in import_gguf(path, tmp_path / "out"):
        pass
    ours = load_model(tmp_path / "out", device="cpu")
    prompt = [5, 17, 200, 3]
    request = Request(tuple(prompt), 1, SamplingParameters(temperature=0), max_new_tokens=12)
    text = tiny.new_tokens(list(decode(Job(ours.engine, ours.tokenizer, request))))
    assert LlamaCpp(path).complete(prompt, 12, keep=False)["tokens"] == text


@pytest.mark.parametrize("space_prefix", [True, False])
def test_sentencepiece(space_prefix: bool, tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", sentencepiece_metadata(add_space_prefix=space_prefix))
    assert_cut_alike(tmp_path / "a.gguf", 200)


def write(path: Path, tokenizer: dict[str, Any]) -> None:
    size = len(tokenizer["tokenizer.ggml.tokens"])
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": size}
    write_gguf(path, tiny.save_llama(path.parent / "original", **sizes), tokenizer=tokenizer)

"""Text is cut as llama.cpp cuts it with the same file. Needs the package xllamacpp, which carries llama.cpp built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from families import save
from gguf_metadata import byte_level_metadata, sentencepiece_lines_metadata, sentencepiece_metadata
from test_gguf_families import CASES
from tiny_gguf import BLOCKS, TYPES, write_gguf
from unicode_lines import unicode_lines

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.importers.gguf_file import GGUFFile
from tokenglass.model.importers.gguf_tokenizer import tokenizer_of
from tokenglass.model.importers.gguf_words import KINDS, WORDS
from tokenglass.model.loading import load_model
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


# llama.cpp does not look at the window of Mistral, and at that of exaone4 only where there are 64 layers; of gpt_oss's
# yarn it rounds where the scaling begins and ends
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"mistral", "exaone4, windows", "gpt_oss, yarn"}))
def test_greedy_text_of_every_family(name: str, tmp_path: Path) -> None:
    """Biases are random too: those of Llama's queries and keys are interleaved in the file, as their weights are."""
    assert largest_gap(*CASES[name], TYPES.F32, tmp_path) < 0.01


WIDE = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}  # rows of whole blocks


@pytest.mark.parametrize(
    "kind", [TYPES.Q8_0, TYPES.Q4_0, TYPES.Q4_1, TYPES.MXFP4, *BLOCKS], ids=lambda kind: str(kind.name)
)
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text"])
def test_greedy_text_of_quantised_files(name: str, kind: Any, tmp_path: Path) -> None:
    """llama.cpp rounds what it multiplies with quantised weights to 8 bits, we do not."""
    family, options = CASES[name]
    assert largest_gap(family, {**options, **WIDE, "num_hidden_layers": 2}, kind, tmp_path) < 0.25


@pytest.mark.parametrize("kind", [TYPES.Q4_0, TYPES.Q4_1, TYPES.Q4_K], ids=lambda kind: str(kind.name))
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text"])
def test_greedy_text_of_matrices_that_are_kept(name: str, kind: Any, tmp_path: Path) -> None:
    family, options = CASES[name]
    gap = largest_gap(family, {**options, **WIDE, "num_hidden_layers": 2}, kind, tmp_path, keep=True)
    assert Checkpoint.open(tmp_path / "imported").quantisation is not None
    assert gap < 0.25


@pytest.mark.parametrize("kind", [TYPES.Q8_0, TYPES.Q4_1, TYPES.Q4_K], ids=lambda kind: str(kind.name))
@pytest.mark.parametrize("keep", [False, True])
def test_greedy_text_of_quantised_experts(keep: bool, kind: Any, tmp_path: Path) -> None:
    """All experts are taken: what llama.cpp rounds would change which of a few are."""
    family, options = CASES["qwen3_moe"]
    experts = {"moe_intermediate_size": 256, "num_experts_per_tok": options["num_experts"]}
    wide = {**options, **WIDE, **experts, "num_hidden_layers": 2}
    assert largest_gap(family, wide, kind, tmp_path, keep=keep) < 0.25


def largest_gap(family: str, options: dict[str, Any], kind: Any, folder: Path, *, keep: bool = False) -> float:
    """How far below our best logit one of llama.cpp's 64 greedy tokens lies, in standard deviations of the logits."""
    metadata = byte_level_metadata(bos_token_id=0, eos_token_id=0)
    save(folder / "original", family, options)
    path = write_gguf(folder / "a.gguf", folder / "original", tokenizer=metadata, quantised=kind)
    for _ in import_gguf(path, folder / "imported", keep=keep):
        pass
    prompt = [5, 17, 200, 3] * 8
    tokens = LlamaCpp(path, context=256).complete(prompt, 64, keep=False)["tokens"]
    assert len(tokens) == 64
    engine = load_model(folder / "imported", device="cpu", backend="native").engine
    logits = engine.forward([prompt + tokens[:-1]], None, last=64, planned_length=256)[0][
        :, 1:
    ]  # without the end token
    gaps = logits.max(-1) - logits[np.arange(64), np.array(tokens) - 1]
    return float(gaps.max() / logits.std())


@pytest.mark.parametrize("space_prefix", [True, False])
def test_sentencepiece(space_prefix: bool, tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", sentencepiece_metadata(add_space_prefix=space_prefix))
    assert_cut_alike(tmp_path / "a.gguf", 200)


@pytest.mark.parametrize("says_start", [True, False])
def test_sentencepiece_lines(says_start: bool, tmp_path: Path) -> None:
    """The start token comes first whatever the file says."""
    write(tmp_path / "a.gguf", sentencepiece_lines_metadata(add_bos_token=says_start))
    assert_cut_alike(tmp_path / "a.gguf", 200)


def write(path: Path, tokenizer: dict[str, Any]) -> None:
    size = len(tokenizer["tokenizer.ggml.tokens"])
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": size}
    write_gguf(path, tiny.save_llama(path.parent / "original", **sizes), tokenizer=tokenizer)

"""Sizes in a GGUF file are checked against its config before anything is read, unpacked or looped over by them."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
from gguf_metadata import byte_level_metadata
from tiny_gguf import TYPES, write_gguf

from tokenglass.model.errors import GGUFError, TokenglassError
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.importers.gguf_config import llama3_scaling
from tokenglass.model.importers.gguf_tokenizer import MAX_TOKENS, tokenizer_of

SIZES = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 432}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_llama(tmp_path_factory.mktemp("original"), **SIZES)


def assert_refused_at_once(path: Path, folder: Path, words: str) -> None:
    begin = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(TokenglassError) as error:
            for _ in import_gguf(path, folder / "out"):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert words in str(error.value)
    assert len(str(error.value)) < 500 + len(str(path))
    assert peak < 64 * 2**20
    assert time.process_time() - begin < 20


def test_rope_factors_are_counted_before_they_are_read(original: Path, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", original, others={"rope_freqs.weight": np.ones(2**20, np.float32)})
    assert_refused_at_once(path, tmp_path, "rope_freqs.weight is [1048576]")


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf"), -0.0])
def test_rope_factors_are_positive(factor: float, original: Path, tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "a.gguf", original, others={"rope_freqs.weight": np.array([1.0] * 7 + [factor], np.float32)}
    )
    assert_refused_at_once(path, tmp_path, "not positive")


@pytest.mark.parametrize("theta", [0.0, -10000.0, float("nan"), float("inf")])
def test_the_base_of_the_rotary_frequencies_is_positive(theta: float, original: Path, tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "a.gguf",
        original,
        others={"rope_freqs.weight": np.full(8, 2, np.float32)},
        llama__rope__freq_base=theta,
    )
    assert_refused_at_once(path, tmp_path, "rope.freq_base")


def test_no_factor_is_divided_by_zero() -> None:
    with pytest.raises(GGUFError, match="not positive"):
        llama3_scaling(1e4, 16, [0.0] * 8)


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("blk.0.ffn_up.weight", TYPES.IQ1_S, (1, 2**22)),  # a few hundred KB that would unpack to 16 MB, or to any size
        ("output_norm.weight", TYPES.F32, (2**18,)),
        ("blk.0.attn_q.weight", TYPES.Q8_0, (1, 1, 64, 64)),
    ],
)
def test_a_tensor_has_the_shape_that_the_config_says(
    name: str, kind: Any, shape: tuple[int, ...], original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is dequantised before that is known."""
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    stored = np.zeros((*shape[:-1], shape[-1] // block * nbytes), np.uint8)
    add = gguf.GGUFWriter.add_tensor

    def add_other(writer: gguf.GGUFWriter, stored_name: str, values: np.ndarray, **options: Any) -> None:
        if stored_name == "blk.0.ffn_down.weight":
            add(writer, name, stored, raw_dtype=kind)
        if stored_name != name:
            add(writer, stored_name, values, **options)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add_other)
    path = write_gguf(tmp_path / "a.gguf", original)
    monkeypatch.setattr("tokenglass.model.importers.gguf_weights.read_values", pytest.fail)
    assert_refused_at_once(path, tmp_path, "fit config.json")


def test_a_layer_beyond_the_last_is_refused(original: Path, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", original, llama__block_count=1)
    assert_refused_at_once(path, tmp_path, "tensors that the model does not have: blk.1.")


def test_more_tokens_than_rows_are_refused_before_they_are_looked_at(original: Path, tmp_path: Path) -> None:
    metadata = byte_level_metadata()
    many = (*metadata["tokenizer.ggml.tokens"], *(f"t{number}" for number in range(10_000)))
    path = write_gguf(tmp_path / "a.gguf", original, tokenizer={**metadata, "tokenizer.ggml.tokens": many})
    assert_refused_at_once(path, tmp_path, "rows of token_embd.weight")


def test_millions_of_tokens_are_refused() -> None:
    with pytest.raises(GGUFError, match="tokens are more than"):
        tokenizer_of({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ("a",) * (MAX_TOKENS + 1)})


def test_names_of_a_stranger_are_short_and_escaped_in_every_message(original: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07" * 1000
    for number, change in enumerate(
        [
            {"general__architecture": evil},
            {f"llama__{evil}": 1},
            {"llama__block_count": evil},
            {"llama__rope__scaling__type": evil},
            {"tokenizer__ggml__model": evil},
            {"tokenizer__ggml__pre": evil},
            {"tokenizer__ggml__merges": [evil]},
            {"tokenizer__ggml__eos_token_id": evil},
        ]
    ):
        path = write_gguf(tmp_path / f"{number}.gguf", original, **change)
        with pytest.raises(TokenglassError) as error:
            for _ in import_gguf(path, tmp_path / "out"):
                pass
        assert str(error.value).isprintable(), change
        assert len(str(error.value)) < 500 + len(str(path)), change

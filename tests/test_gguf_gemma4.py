"""GGUF files of gemma4: heads of two sizes, layers that read the keys of others, a large table for each layer's input.

That the checkpoint comes back, and its logits, is tested with those of all other families.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import save
from gguf_metadata import sentencepiece_lines_metadata
from safetensors.torch import load_file
from test_gguf_families import CASES, GEMMA4, KEYS_ARE_VALUES
from tiny_gguf import TYPES, write_gguf
from unicode_lines import unicode_lines

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import TokenglassError
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.importers.gguf_tokenizer import end_ids, tokenizer_of
from tokenglass.model.progress import finish
from tokenglass.model.text.tokenizer import Tokenizer

NAMES = [name for name in CASES if name.startswith("gemma4")]
TABLE = "model.embed_tokens_per_layer.weight"
WIDE = {"hidden_size": 64, "intermediate_size": 64, "hidden_size_per_layer_input": 32}  # rows of whole blocks


def write(folder: Path, changes: dict[str, Any] | None = None, **options: Any) -> Path:
    save(folder / "original", "gemma4_text", {**GEMMA4, **(changes or {})})
    return write_gguf(folder / "a.gguf", folder / "original", **options)


def ropes(share: float) -> dict[str, Any]:
    """Those of both kinds of layers; `share` of a head turns in the ones without a window."""
    return {
        "full_attention": {"rope_type": "proportional", "rope_theta": 5e5, "partial_rotary_factor": share},
        "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
    }


def config_of(folder: Path) -> ModelConfig:
    """The config, but for the tokens that end a text, which the file's tokenizer names."""
    return replace(Checkpoint.open(folder).config, eos_token_ids=())


def refusal(path: Path) -> str:
    with pytest.raises(TokenglassError) as error:
        finish(import_gguf(path, path.parent / "imported"))
    assert not (path.parent / "imported").exists()
    return str(error.value)


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_the_config_comes_back(name: str, share: float, tmp_path: Path) -> None:
    path = write(tmp_path, {**CASES[name][1], "rope_parameters": ropes(share)})
    finish(import_gguf(path, tmp_path / "imported"))
    assert config_of(tmp_path / "imported") == config_of(tmp_path / "original")


def test_a_rope_in_which_every_pair_turns_is_an_ordinary_one(tmp_path: Path) -> None:
    path = write(tmp_path, {"rope_parameters": ropes(1.0)})
    finish(import_gguf(path, tmp_path / "imported"))
    config = json.loads((tmp_path / "imported" / "config.json").read_text())
    assert config["rope_parameters"]["full_attention"] == {"rope_type": "default", "rope_theta": 5e5}


def test_no_pair_of_a_head_of_any_size_is_lost(tmp_path: Path) -> None:
    """In floats 30 / 44 of 44 numbers are fewer than 30."""
    path = write(tmp_path, {"global_head_dim": 44, "rope_parameters": ropes(30.5 / 44)})
    finish(import_gguf(path, tmp_path / "imported"))
    assert config_of(tmp_path / "imported") == config_of(tmp_path / "original")


def test_keys_that_no_layer_reads_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    """As files have them whose checkpoints do."""
    shapes = {"attn_k.weight": (64, 64), "attn_v.weight": (64, 64), "attn_k_norm.weight": (32,)}
    others = {f"blk.4.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    path = write(tmp_path, others=others)
    assert finish(import_gguf(path, tmp_path / "imported")) == "without keys and values that no layer reads"
    actual, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("imported", "original"))
    assert actual.keys() == expected.keys()
    assert config_of(tmp_path / "imported") == config_of(tmp_path / "original")


@pytest.mark.parametrize(
    ("kind", "options", "dtype"),
    [
        (TYPES.BF16, {}, torch.bfloat16),
        (TYPES.Q8_0, {}, torch.float32),
        (TYPES.Q4_0, {"dtype": "bfloat16"}, torch.bfloat16),
        (TYPES.Q4_0, {"keep": True}, torch.float32),
        (TYPES.Q4_0, {"keep": True, "dtype": "bfloat16"}, torch.bfloat16),
    ],
    ids=str,
)
def test_the_large_table_is_as_wide_as_its_type_needs(
    kind: Any, options: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    path = write(tmp_path, WIDE, quantised=kind)
    finish(import_gguf(path, tmp_path / "imported", **options))
    finish(import_gguf(path, tmp_path / "wide", dtype="float32"))
    actual, expected = (load_file(tmp_path / name / "model.safetensors")[TABLE] for name in ("imported", "wide"))
    assert actual.dtype == dtype
    assert torch.equal(actual, expected.to(dtype))


def test_a_table_in_bfloat16_stays_so_beside_matrices_that_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, WIDE, quantised=lambda name: TYPES.BF16 if name.startswith("per_layer") else TYPES.Q4_0)
    notes = finish(import_gguf(path, tmp_path / "imported", keep=True))
    stored = load_file(tmp_path / "imported" / "model.safetensors")
    assert stored[TABLE].dtype == torch.bfloat16
    assert any(name.endswith(".packed") for name in stored)
    assert "BF16 is bfloat16" in notes


def test_one_full_layer_with_values_means_that_all_have_some(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {**KEYS_ARE_VALUES, "num_global_key_value_heads": 2},
        others={"blk.1.attn_v.weight": np.ones((128, 64), np.float32)},
    )
    assert "missing: model.layers.3.self_attn.v_proj.weight" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"expert_count": 8, "expert_used_count": 2}, "expert_feed_forward_length is None; expected a whole number"),
        ({"attention__sliding_window_pattern": [True] * 6}, "expected a last layer without a window"),
        ({"attention__sliding_window_pattern": [False] * 5}, "expected a period or a list of 6"),
        ({"attention__key_length_swa": 16}, "attention.value_length_swa is 32; expected 16, the size of a head"),
        ({"rope__dimension_count_swa": 16}, "rope.dimension_count_swa is 16; expected 32"),
        ({"rope__dimension_count": 32}, "rope_freqs.weight is [32] of F32; expected 16 of F32"),
        ({"attention__shared_kv_layers": 6}, "attention.shared_kv_layers is 6; expected less than the 6 layers"),
        ({"attention__shared_kv_layers": 2**31}, "attention.shared_kv_layers is 2147483648"),
        ({"attention__shared_kv_layers": 1}, "expected twice as much in the last 1 layers"),
        ({"feed_forward_length": [96, 64, 96, 96, 192, 192]}, "feed_forward_length is (96, 64, 96, 96, 192, 192)"),
        ({"attention__head_count_kv": [2, 2, 1, 2, 2, 2]}, "expected one number for all layers of a kind"),
        ({"attention__head_count_kv": [2, 1]}, "expected one number for all layers of a kind"),
        ({"attention__head_count_kv_of_layers": 5}, "attention.head_count_kv_of_layers 5 is not supported"),
        ({"layers_without_attention": 5}, "gemma4.layers_without_attention 5 is not supported"),
        ({"attention__head_count_kv": [2, 0, 2, 2, 2, 2]}, "gemma4.layers_without_attention"),
        ({"block_count": 2**31}, "block_count is 2147483648; expected at most 1,024 layers"),
        ({"embedding_length_per_layer_input": 8}, "wrong shape"),
    ],
    ids=str,
)
def test_what_is_no_such_model_is_refused_by_name(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path, **{f"gemma4__{key}": value for key, value in changes.items()})
    assert words in refusal(path)


def test_the_tokenizer_gives_every_text_back() -> None:
    """Whether it cuts as llama.cpp does is tested in test_llama_cpp.py."""
    tokenizer = Tokenizer(tokenizer_of(sentencepiece_lines_metadata())[0])
    for line in [*unicode_lines(100), "\n" * 7, "a\n\n\nb  c\n"]:
        assert tokenizer.decode(tokenizer.encode_bare(line)) == line
    assert len(tokenizer.encode_bare("\n\n\n")) == 1


def test_the_end_of_a_turn_ends_a_text() -> None:
    metadata = sentencepiece_lines_metadata()
    tokens, types = (
        (*metadata[f"tokenizer.ggml.{key}"], value) for key, value in (("tokens", "<turn|>"), ("token_type", 3))
    )
    more = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": (0.0,) * len(tokens),
    }
    assert end_ids({**metadata, **more}) == [2, len(tokens) - 1]
    assert json.loads(tokenizer_of({**metadata, **more})[0].to_str())["added_tokens"][-1]["special"]

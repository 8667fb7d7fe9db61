"""A model computed in float32 whose weights are stored in bfloat16: the kernels hold them as they are stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import native_parts
import pytest
import tiny
import torch
from families import CASES, save
from safetensors.torch import load_file, save_file

from tokenglass.model.checkpoint.adapter import Adapter
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model


def store(folder: Path, dtype: torch.dtype) -> None:
    """Round a checkpoint's weights to bfloat16, and store them in this dtype."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.bfloat16().to(dtype) for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    tiny.edit_json(folder / "config.json", dtype=str(dtype).removeprefix("torch."))


def load(folder: Path, *adapters: Adapter, backend: str = "native") -> LoadedModel:
    native_parts.compiled()
    return load_model(folder, dtype="float32", device="cpu", backend=backend, adapters=adapters)


def logits_of(loaded: LoadedModel, count: int) -> bytes:
    ids = [(29 * place) % tiny.VOCAB_SIZE for place in range(count)]
    return loaded.engine.forward([ids], None, last=None)[0].tobytes()


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_weights_stored_in_float32_bit_for_bit(case: str, tmp_path: Path) -> None:
    save(tmp_path / "narrow", *CASES[case])
    shutil.copytree(tmp_path / "narrow", tmp_path / "wide")
    store(tmp_path / "narrow", torch.bfloat16)
    store(tmp_path / "wide", torch.float32)
    narrow, wide = load(tmp_path / "narrow"), load(tmp_path / "wide")
    for count in (1, 2, 3, 4, 5, 7, 16, 20):  # columns: each of the kernels' ways
        assert logits_of(narrow, count) == logits_of(wide, count)


def test_they_take_half_the_memory_and_a_step_reads_half(tmp_path: Path) -> None:
    tiny.save_llama(tmp_path / "narrow", dtype=torch.bfloat16)
    tiny.byte_level_tokenizer().save(str(tmp_path / "narrow/tokenizer.json"))
    shutil.copytree(tmp_path / "narrow", tmp_path / "wide")
    store(tmp_path / "wide", torch.float32)
    narrow, wide = load(tmp_path / "narrow"), load(tmp_path / "wide")
    assert (narrow.dtype, narrow.cache_dtype) == (wide.dtype, wide.cache_dtype) == ("float32", "float32")
    assert 2 * narrow.nbytes == wide.nbytes
    assert narrow.engine.step_bytes < 0.55 * wide.engine.step_bytes
    assert load(tmp_path / "narrow", backend="torch").nbytes == wide.nbytes


def test_what_an_adapter_changes_is_not_rounded_to_it(tmp_path: Path) -> None:
    tiny.save_llama(tmp_path / "narrow", dtype=torch.bfloat16)
    tiny.byte_level_tokenizer().save(str(tmp_path / "narrow/tokenizer.json"))
    shutil.copytree(tmp_path / "narrow", tmp_path / "wide")
    store(tmp_path / "wide", torch.float32)
    weight = load_file(tmp_path / "wide/model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    (tmp_path / "adapter").mkdir()
    tiny_change = {
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.full((1, weight.shape[1]), 1e-3),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": torch.full((weight.shape[0], 1), 1e-3),
    }
    save_file(tiny_change, tmp_path / "adapter/adapter_model.safetensors")
    (tmp_path / "adapter/adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
    adapter = Adapter.open(tmp_path / "adapter")
    narrow, wide = load(tmp_path / "narrow", adapter), load(tmp_path / "wide", adapter)
    assert logits_of(narrow, 9) == logits_of(wide, 9) != logits_of(load(tmp_path / "narrow"), 9)

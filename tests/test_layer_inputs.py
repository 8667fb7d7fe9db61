"""What every layer takes in of a token: a large table that stays on the disk; and layers that read what others keep.

Logits, bits, texts and attributions of such models are tested with those of all other families.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import shell
import torch
from closeness import assert_close
from families import CASES, random_ids, save
from torch_parts import as_tensor

from tokenglass.model.checkpoint.arrays import BFLOAT16
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.weights import read_weights
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import ConfigError, ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.progress import finish
from tokenglass.model.torch_engine.split import Split

TABLE = "model.embed_tokens_per_layer.weight"
OPTIONS: dict[str, Any] = CASES["gemma4_text"][1]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model that transformers wrote in bfloat16 and read again in float32, and its folder."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    folder = tmp_path_factory.mktemp("narrow")
    save(folder, "gemma4_text", OPTIONS).to(torch.bfloat16).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), folder


def is_mapped(array: Any) -> bool:
    """Whether an array lies in a mapped file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array.obj if isinstance(array, memoryview) else array, mmap.mmap)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_table_stays_as_it_is_stored_and_mapped(narrow: tuple[Any, Path], dtype: str) -> None:
    weights = finish(read_weights(Checkpoint.open(narrow[1]), dtype=dtype)).weights
    assert weights[TABLE].dtype == BFLOAT16
    assert is_mapped(weights[TABLE])


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_model_over_a_narrow_table_has_the_logits_of_transformers(narrow: tuple[Any, Path], backend: Any) -> None:
    reference, folder = narrow
    ids = random_ids(40)
    engine = load_model(folder, dtype="float32", device="cpu", backend=backend).engine
    with torch.inference_mode():
        expected = reference(ids).logits
    assert_close(as_tensor(engine.forward(ids.tolist(), None, last=None)), expected)


def test_neither_memory_nor_a_step_counts_the_table(narrow: tuple[Any, Path]) -> None:
    checkpoint = Checkpoint.open(narrow[1])
    table = next(info for info in checkpoint.tensors if info.name == TABLE)
    assert checkpoint.nbytes_as("bfloat16") == checkpoint.nbytes - table.nbytes
    loaded = load_model(narrow[1], dtype="bfloat16", device="cpu", backend="native")
    shapes = loaded.checkpoint.blueprint.shapes
    others = sum(int(np.prod(shape)) for name, shape in shapes.items() if name != TABLE)
    unread = int(np.prod(shapes["model.embed_tokens.weight"]))  # its head is a weight of its own
    assert loaded.engine.step_bytes == 2 * (others - unread)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_quantised_copy_keeps_the_table(narrow: tuple[Any, Path], kind: str, tmp_path: Path) -> None:
    done = shell.tokenglass("quantize", str(narrow[1]), str(tmp_path / kind), "--format", kind, "--calibrate", "0")
    assert done.returncode == 0, done.stderr
    stored, original = (safetensors.torch.load_file(f / "model.safetensors") for f in (tmp_path / kind, narrow[1]))
    assert torch.equal(stored[TABLE], original[TABLE])
    texts = [
        shell.generate("-m", str(source), "The fox", "-n", "12", "--temperature", "0", *options).stdout
        for source, options in ((tmp_path / kind, ()), (narrow[1], ("--quantize", kind)))
    ]
    assert texts[0]
    assert texts[0] == texts[1]


def test_keys_and_values_that_nobody_reads_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path, "gemma4_text", OPTIONS)
    own = safetensors.torch.load_file(tmp_path / "model.safetensors")
    before = shell.generate("-m", str(tmp_path), "The fox", "-n", "8", "--temperature", "0")
    spare = {f"model.layers.4.self_attn.{name}_proj.weight": torch.ones(32, 32) for name in "kv"}
    safetensors.torch.save_file({**own, **spare}, tmp_path / "model.safetensors", {"format": "pt"})
    after = shell.generate("-m", str(tmp_path), "The fox", "-n", "8", "--temperature", "0")
    assert after.returncode == 0, after.stderr
    assert after.stdout == before.stdout
    assert b"layers.4.self_attn.k_proj" in after.stderr


def test_only_layers_that_keep_something_take_room_in_the_cache(narrow: tuple[Any, Path]) -> None:
    config = Checkpoint.open(narrow[1]).config
    assert [kind.source for kind in config.layers] == [None, None, None, 0, 2]
    assert list(config.layer_states) == [0, 1, 2]
    assert config.cache_bytes_per_token("float32") == 4 * 2 * 2 * (12 + 16 + 16)


def test_inspect_names_what_differs_from_layer_to_layer(narrow: tuple[Any, Path]) -> None:
    facts = json.loads(shell.tokenglass("inspect", str(narrow[1]), "--json").stdout)
    assert facts["layer_inputs"]["size"] == 16
    kinds = [(kind["layers"], kind["head_dim"], kind["keys_of_layer"]) for kind in facts["layer_kinds"]]
    assert kinds == [(1, None, None), (2, 16, None), (1, None, 0), (1, 16, 2)]
    words = b" ".join(shell.tokenglass("inspect", str(narrow[1])).stdout.split())
    assert b"16 numbers of each token for every layer, from a table that stays on the disk" in words
    assert b"2 key-value heads of 16, an MLP of 96, keys and values of layer 3" in words


def test_such_a_model_is_not_split_over_processes(narrow: tuple[Any, Path]) -> None:
    with pytest.raises(ParameterError, match="are not split over several processes"):
        Split(Blueprint.of(Checkpoint.open(narrow[1]).config), 0, 2)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"enable_moe_block": True, "top_k_experts": 2}, "num_experts is None; expected a whole number"),
        ({"enable_moe_block": 1}, "enable_moe_block is 1; expected true or false"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention is 'all'"),
        ({"num_kv_shared_layers": 5}, "num_kv_shared_layers is 5; expected less than the 5 layers"),
        ({"num_kv_shared_layers": -1}, "num_kv_shared_layers is -1"),
        ({"num_kv_shared_layers": 4}, "layer 1 is to read the keys and values of an earlier layer of its kind"),
        ({"num_kv_shared_layers": "some"}, "num_kv_shared_layers is 'some'; expected a whole number"),
        ({"vocab_size_per_layer_input": 3}, "vocab_size_per_layer_input is 3; expected 512"),
        ({"hidden_size_per_layer_input": -2}, "hidden_size_per_layer_input is -2"),
        ({"hidden_size_per_layer_input": 10**12}, "hidden_size_per_layer_input is 1000000000000"),
        ({"global_head_dim": 0}, "head_dim is 0 in some layers"),
        ({"global_head_dim": 10**9}, "head_dim is 1000000000 in some layers"),
        ({"per_layer_config": {"1": {"head_dim": 8}}}, "the same for every layer of the kind full_attention"),
        ({"per_layer_config": {"0": {"hidden_size": 8}}}, "sizes of heads"),
        ({"per_layer_config": [1]}, "per_layer_config is [1]; expected an object"),
        ({"attention_k_eq_v": True, "num_global_key_value_heads": 3}, "cannot be shared by 3 key-value heads"),
        ({"layer_types": ["conv"] * 5}, "layer_types names 'conv'"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_not_built_or_is_no_model_is_refused_by_name(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        ModelConfig.from_hf({"model_type": "gemma4_text", **OPTIONS, **changes})
    assert why in str(refusal.value)

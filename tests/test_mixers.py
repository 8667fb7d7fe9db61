"""Layers that mix positions in another way than attention: they are saved, stored in fewer bits and inspected like the
others, and what of them cannot be run is refused.

Logits, bits and texts of such families are tested with those of all others (test_families.py, test_kernels_engine.py,
test_random_configs.py, test_lossless.py, test_inspection.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import shell
from families import CASES, DELTA, SIZES, save

from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import ConfigError, ParameterError
from tokenglass.model.torch_engine.split import Split


@dataclass(frozen=True)
class Mixer:
    """What is said of a family's layers."""

    family: str
    in_json: tuple[str, list[tuple[int, int | None]]]  # a field of inspect, with how many layers have which value of it
    in_words: bytes
    unsplit: str


CONVOLUTIONS, RECURRENCES = "short convolutions are not split", "Gated DeltaNet layers are not split"
MIXTURES = "a mixture of experts is not split"
MIXERS = [
    Mixer("lfm2", ("taps", [(2, None), (1, 3)]), b"convolution of 3", CONVOLUTIONS),
    Mixer("qwen3_5_text", ("matrices", [(2, 4), (1, None)]), b"a recurrence of 4 matrices", RECURRENCES),
    Mixer("lfm3", ("taps", [(1, None), (2, 3), (1, None)]), b"convolution of 3", CONVOLUTIONS),
    Mixer("lfm2_moe", ("taps", [(1, None), (2, 3), (1, None)]), b"convolution of 3", MIXTURES),
    Mixer("qwen3_5_moe_text", ("matrices", [(2, 4), (1, None)]), b"a recurrence of 4 matrices", MIXTURES),
    Mixer("qwen3_next", ("matrices", [(2, 4), (1, None)]), b"a recurrence of 4 matrices", MIXTURES),
]


@pytest.fixture(scope="module", params=MIXERS, ids=lambda mixer: mixer.family)
def mixer(request: pytest.FixtureRequest) -> Mixer:
    return request.param


@pytest.fixture(scope="module")
def folder(mixer: Mixer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mixer")
    save(path, *CASES[mixer.family])
    return path


@pytest.mark.parametrize(
    ("backend", "cache_dtype"),
    [("native", "float32"), ("native", "bfloat16"), ("native", "int8"), ("torch", "float32")],
)
def test_a_prompt_goes_on_from_a_saved_cache(folder: Path, backend: str, cache_dtype: str, tmp_path: Path) -> None:
    model = ("-m", str(folder), "--dtype", "float32", "--backend", backend, "--cache-dtype", cache_dtype)
    common = (*model, "-n", "8", "--temperature", "0")
    alone = shell.generate(*common, "The fox and the hen")
    first = shell.generate(*common, "The fox", "--save-cache", str(tmp_path / "cache"))
    again = shell.generate(*common, "The fox and the hen", "--load-cache", str(tmp_path / "cache"))
    assert first.returncode == again.returncode == 0, again.stderr
    assert again.stdout == alone.stdout


def test_it_is_stored_in_fewer_bits_and_read_again_but_for_its_kernels(folder: Path, tmp_path: Path) -> None:
    done = shell.tokenglass(
        "quantize", str(folder), str(tmp_path / "int4"), "--format", "int4", "--calibrate", "0", "--json"
    )
    assert done.returncode == 0, done.stderr
    stored, quantised_now = (
        shell.generate("-m", str(source), "The fox", "-n", "12", "--temperature", "0", *options)
        for source, options in ((tmp_path / "int4", ()), (folder, ("--quantize", "int4")))
    )
    assert stored.returncode == 0, stored.stderr
    assert stored.stdout == quantised_now.stdout
    names = Blueprint.of(Checkpoint.open(folder).config).quantisable
    assert not any("conv.conv" in name or "conv1d" in name for name in names)


def test_inspect_names_the_layers(folder: Path, mixer: Mixer) -> None:
    facts = json.loads(shell.tokenglass("inspect", str(folder), "--json").stdout)
    name, layers = mixer.in_json
    assert [(kind["layers"], kind[name]) for kind in facts["layer_kinds"]] == layers
    assert mixer.in_words in b" ".join(shell.tokenglass("inspect", str(folder)).stdout.split())


def test_they_are_not_split_over_processes(folder: Path, mixer: Mixer) -> None:
    with pytest.raises(ParameterError, match=f"{mixer.unsplit} over several processes; use one"):
        Split(Blueprint.of(Checkpoint.open(folder).config), 0, 2)


LFM2: dict[str, Any] = {"model_type": "lfm2", **SIZES, "layer_types": ["conv", "full_attention", "conv"]}
LFM3 = {**LFM2, "model_type": "lfm3"}
QWEN: dict[str, Any] = {"model_type": "qwen3_5_text", **SIZES, **DELTA}


@pytest.mark.parametrize(
    ("config", "changes", "why"),
    [
        (LFM2, {"conv_L_cache": 0}, "conv_L_cache is 0; expected between 1 and 128"),
        (LFM2, {"conv_L_cache": 10**9}, "conv_L_cache is 1000000000"),
        (LFM2, {"conv_bias": 1}, "conv_bias"),
        (LFM2, {"layer_types": ["conv", "full_attention", "mamba"]}, "layer_types names 'mamba'"),
        (LFM2, {"layer_types": ["conv"]}, "layer_types"),
        (LFM2, {"layer_types": None, "full_attn_idxs": "all"}, "full_attn_idxs"),
        (LFM2, {"block_multiple_of": 0}, "block_multiple_of"),
        (LFM2, {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8}, "3 heads do not divide the 32"),
        (LFM3, {"use_sandwich_norm": 1}, "use_sandwich_norm is 1; expected true or false"),
        (LFM3, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling .* is not supported for lfm3"),
        (LFM3, {"layer_types": ["conv", "full_attention", "mamba"]}, "layer_types names 'mamba'"),
        (LFM3, {"sliding_window": None, "layer_types": ["sliding_attention"] * 3}, "there is no sliding_window"),
        (LFM3, {"use_attention_gate": 1}, "use_attention_gate is 1"),
        (QWEN, {"linear_num_key_heads": 3}, "4 value heads cannot be shared by 3 key heads"),
        (QWEN, {"linear_key_head_dim": 0}, "are no sizes of linear attention"),
        (QWEN, {"linear_conv_kernel_dim": 10**9}, "are no sizes of linear attention"),
        (QWEN, {"linear_value_head_dim": "wide"}, "linear_value_head_dim"),
        (QWEN, {"hidden_act": "gelu"}, "hidden_act"),
        (QWEN, {"layer_types": ["mamba", "full_attention", "mamba"]}, "layer_types names 'mamba'"),
        (QWEN, {"full_attention_interval": 0}, "a pattern of 0 layers"),
        (QWEN, {"model_type": "olmo_hybrid"}, "it has linear attention"),
        (QWEN, {"model_type": "qwen3_next", "linear_num_key_heads": 3}, "4 value heads cannot be shared"),
        (QWEN, {"model_type": "qwen3_next", "decoder_sparse_step": 0}, "decoder_sparse_step"),
        (QWEN, {"model_type": "qwen3_next", "norm_topk_prob": "no"}, "norm_topk_prob is 'no'"),
        (QWEN, {"model_type": "qwen3_next", "num_experts": 0}, "10 experts of 0 are chosen"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(config: dict[str, Any], changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        ModelConfig.from_hf({**config, **changes})
    assert "\n" not in str(caught.value)

"""Short convolutions in the place of attention: what they keep, how files spell them, and what is refused.

Logits, bits and texts of such families are tested with those of all others (test_families.py, test_kernels_engine.py,
test_random_configs.py, test_lossless.py, test_inspection.py).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shell
import tiny
from cache_machine import CacheMachine
from hypothesis import settings
from rich.segment import Segment
from test_families import CASES, SIZES, save
from torch_parts import load_engine

from tokenglass.cli.widgets.cache_bar import CacheBar
from tokenglass.cli.widgets.widget import UNICODE
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import Convolution, LayerKind
from tokenglass.model.errors import ConfigError, ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Totals
from tokenglass.model.torch_engine.split import Split

MIXED = (LayerKind(None, convolution=Convolution(4, bias=True)), tiny.CONFIG.layers[0])


pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")


class Rows(CacheMachine):
    model = tiny.random_transformer(replace(tiny.CONFIG, layers=MIXED))
    limit, most_new, most_ids = 64, 4, 40


TestRows = Rows.TestCase
TestRows.settings = settings(max_examples=60, stateful_step_count=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("convolutions")
    save(made, *CASES["lfm2"])
    tiny.byte_level_tokenizer().save(str(made / "tokenizer.json"))
    return made


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_the_cache_panel_tells_the_kinds_of_state_apart_and_counts_both(folder: Path, backend: Any) -> None:
    loaded = load_model(folder, dtype="float32", device="cpu", backend=backend)
    cache = loaded.engine.new_cache()
    loaded.engine.forward([[1, 2, 3, 4, 5]], cache)
    usage = cache.usage()
    attention = (
        5 * 2 * 2 * SIZES["hidden_size"] // 2 * 4
    )  # positions, layers, keys and values, of half the heads, bytes
    convolution = 5 * SIZES["hidden_size"] * 4
    assert usage.states is not None
    assert {state.name: state.nbytes_used for state in usage.states} == {
        "keys and values": attention,
        "convolution inputs": convolution,
    }
    assert usage.nbytes_used == attention + convolution == 5 * usage.bytes_per_token
    assert usage.bytes_per_token == loaded.checkpoint.config.cache_bytes_per_token("float32")
    assert usage.nbytes_held == sum(state.array.nbytes for state in cache.rows[0].states)
    shown = "".join(
        part.text
        for row in CacheBar(usage, (), Totals()).rows(200, UNICODE)
        for part in row
        if isinstance(part, Segment)
    )
    assert "1.2 KiB keys and values, 640 B convolution inputs" in shown


def test_a_cache_of_one_kind_of_state_does_not_name_it(saved_checkpoint: Path) -> None:
    assert (
        load_engine(Checkpoint.open(saved_checkpoint), dtype="float32", device="cpu").new_cache().usage().states is None
    )


@pytest.mark.parametrize("cache_dtype", ["float32", "bfloat16", "int8"])
def test_a_prompt_goes_on_from_a_saved_cache(folder: Path, cache_dtype: str, tmp_path: Path) -> None:
    common = ("-m", str(folder), "-n", "8", "--temperature", "0", "--cache-dtype", cache_dtype, "--backend", "native")
    alone = shell.generate(*common, "The fox and the hen")
    first = shell.generate(*common, "The fox", "--save-cache", str(tmp_path / "cache"))
    again = shell.generate(*common, "The fox and the hen", "--load-cache", str(tmp_path / "cache"))
    assert first.returncode == again.returncode == 0, again.stderr
    assert again.stdout == alone.stdout


def test_it_is_stored_in_fewer_bits_and_read_again_but_for_its_kernels(folder: Path, tmp_path: Path) -> None:
    done = shell.tokenglass("quantize", str(folder), str(tmp_path / "made"), "--format", "int4", "--json")
    assert done.returncode == 0, done.stderr
    one, other = (
        shell.generate("-m", str(source), "The fox", "-n", "12", "--temperature", "0", *options)
        for source, options in ((tmp_path / "made", ()), (folder, ("--quantize", "int4")))
    )
    assert one.returncode == 0, one.stderr
    assert one.stdout == other.stdout
    assert not any("conv.conv" in name for name in Blueprint.of(Checkpoint.open(folder).config).quantisable)


def test_inspect_names_the_convolutions(folder: Path) -> None:
    facts = json.loads(shell.tokenglass("inspect", str(folder), "--json").stdout)
    assert [(kind["layers"], kind["taps"]) for kind in facts["layer_kinds"]] == [(2, None), (1, 3)]
    assert b"convolution of 3" in b" ".join(shell.tokenglass("inspect", str(folder)).stdout.split())


def test_flow_looks_into_convolutions(folder: Path) -> None:
    done = shell.tokenglass("flow", "-m", str(folder), "The fox and the hen")
    assert done.returncode == 0, done.stderr
    assert b"convolution 2" in done.stdout


def test_convolutions_are_not_split_over_processes(folder: Path) -> None:
    with pytest.raises(ParameterError, match="short convolutions are not split over several processes; use one"):
        Split(Blueprint.of(Checkpoint.open(folder).config), 0, 2)


LFM2 = {"model_type": "lfm2", **SIZES, "layer_types": ["conv", "full_attention", "conv"]}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"conv_L_cache": 0}, "conv_L_cache is 0; expected between 1 and 128"),
        ({"conv_L_cache": 10**9}, "conv_L_cache is 1000000000"),
        ({"conv_bias": 1}, "conv_bias"),
        ({"layer_types": ["conv", "full_attention", "mamba"]}, "layer_types names 'mamba'"),
        ({"layer_types": ["conv"]}, "layer_types"),
        ({"layer_types": None, "full_attn_idxs": "all"}, "full_attn_idxs"),
        ({"block_multiple_of": 0}, "block_multiple_of"),
        ({"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8}, "3 heads do not divide the 32 channels"),
        ({"model_type": "lfm2_moe", "use_expert_bias": True}, "routers that choose by another number"),
        ({"model_type": "lfm3", "use_attention_gate": True}, "gated attention"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        ModelConfig.from_hf({**LFM2, **changes})
    assert "\n" not in str(caught.value)


def test_older_files_are_read_by_their_own_names() -> None:
    older = {
        "model_type": "lfm2",
        "hidden_size": 1024,
        "block_ff_dim": 6656,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_hidden_layers": 16,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        "tie_embedding": True,
        "torch_dtype": "bfloat16",
    }
    config = ModelConfig.from_hf(older)
    assert (config.intermediate_size, config.tie_word_embeddings, config.norm_eps) == (4608, True, 1e-5)
    assert [layer for layer, kind in enumerate(config.layers) if kind.convolution is None] == [2, 5, 8, 10, 12, 14]
    assert not config.notes

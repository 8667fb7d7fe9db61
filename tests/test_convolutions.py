"""Short convolutions in the place of attention: what they keep, and how older files spell them; see test_mixers.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shell
import tiny
from cache_machine import CacheMachine
from families import CASES, SIZES, save
from hypothesis import settings
from rich.segment import Segment
from torch_parts import load_engine

from tokenglass.cli.widgets.cache_bar import CacheBar
from tokenglass.cli.widgets.widget import UNICODE
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import Convolution, LayerKind
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Totals

MIXED = (LayerKind(None, convolution=Convolution(4, bias=True)), tiny.CONFIG.layers[0])


pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")


class Rows(CacheMachine):
    model = tiny.random_transformer(replace(tiny.CONFIG, layers=MIXED))
    limit, most_new, most_ids = 64, 4, 40


TestRows = Rows.TestCase
TestRows.settings = settings(max_examples=60, stateful_step_count=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("convolutions")
    save(path, *CASES["lfm2"])
    return path


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
    text = "".join(
        part.text
        for row in CacheBar(usage, (), Totals()).rows(200, UNICODE)
        for part in row
        if isinstance(part, Segment)
    )
    assert "1.2 KiB keys and values, 640 B convolution inputs" in text


def test_a_cache_of_one_kind_of_state_does_not_name_it(saved_checkpoint: Path) -> None:
    assert (
        load_engine(Checkpoint.open(saved_checkpoint), dtype="float32", device="cpu").new_cache().usage().states is None
    )


def test_flow_looks_into_convolutions(folder: Path) -> None:
    done = shell.tokenglass("flow", "-m", str(folder), "The fox and the hen")
    assert done.returncode == 0, done.stderr
    assert b"convolution 2" in done.stdout


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
